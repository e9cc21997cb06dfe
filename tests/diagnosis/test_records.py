import json
import math

from nan_callbacks.core.events import from_json_line, to_json_line
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.diagnosis import Confidence, Diagnosis, Tried, Verdict
from nan_callbacks.diagnosis.history import HistoryRecorder
from nan_callbacks.diagnosis.incident import Incident
from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase, SourceLine

TRIALS = (
    Tried(what="learning rate × 0.1, 12 steps from the last good state", outcome="finite, loss falling", failed=False),
    Tried(what="without sample 37", outcome="still non-finite", failed=True, control=True),
)
FOUND = Diagnosis(
    verdicts=(
        Verdict(
            code="OPT601", title="learning rate too high", confidence=Confidence.CONFIRMED,
            because=("the learning rate is 3",), trials=TRIALS, remedies=("Divide `lr=` by 3",),
        ),
        Verdict(code="NAN110", title="overflow", confidence=Confidence.LIKELY),
    ),
    origin=Origin(
        kind=OriginKind.OPERATION, operation="exp", phase=Phase.BACKWARD, module="decoder.3", module_type="Rate",
        source=SourceLine(file="/home/me/model.py", line=31, function="forward", text="return torch.exp(x)"),
        operands=(TensorSummary.of([[1.0, 90.0]], name="x"),), result=TensorSummary.of([math.inf]), rows=(3,),
    ),
    guilty_rows=(3,), trials=TRIALS, seconds=0.5, steps_spent=13, note="A note.",
)  # fmt: skip
INCIDENT = {
    "event": "incident", "step": 7, "epoch": 1, "batch_index": 3, "code": "NAN101", "title": "non-finite gradients",
    "where": "", "quantity": "grad_norm", "value": math.nan, "limit": None, "robust_z": None, "detail": "",
    "skipped": True, "action": "skip_step",
}  # fmt: skip


def test_a_diagnosis_survives_the_stream_of_events():
    event = from_json_line(to_json_line({"event": "diagnosis", "diagnosis": FOUND.to_dict()}))
    assert Diagnosis.from_dict(event["diagnosis"]) == FOUND


def test_its_record_is_made_of_plain_containers():
    told = FOUND.to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert type(told["verdicts"][0]["confidence"]) is str


def test_the_paragraph_says_where_why_what_was_tried_and_what_to_do():
    assert FOUND.describe().splitlines() == [
        "Where: the derivative of exp made the first non-finite value, on x float64 [1, 2], 1 to 90, "
        "in decoder.3 (Rate), at model.py:31 in forward: return torch.exp(x).",
        "Why: learning rate too high (OPT601, confirmed): the learning rate is 3. Also considered: overflow (likely).",
        "Tried: learning rate × 0.1, 12 steps from the last good state: finite, loss falling; "
        "without sample 37: still non-finite.",
        "What to do: Divide `lr=` by 3.",
        "A note.",
    ]


def test_the_cause_is_the_best_verdict():
    assert FOUND.cause is FOUND.verdicts[0]
    assert Diagnosis().cause is None


def test_an_incident_is_made_from_its_event():
    incident = Incident.from_event(INCIDENT, FOUND)
    assert (incident.step, incident.code, incident.action) == (7, "NAN101", "skip_step")
    first, second, *_ = incident.describe().splitlines()
    assert first.startswith("step 7 · NAN101 non-finite gradients")
    assert second.startswith("Where: the derivative of exp")
    assert Incident.from_event(INCIDENT).describe() == incident.message


def step(number: int, **about) -> StepObservation:
    return StepObservation(step=number, loss=float(number), grad_norm=2.0 * number, learning_rates=(0.1, 0.3), **about)


class TestHistory:
    def test_accepted_steps_are_remembered_oldest_first(self):
        recorder = HistoryRecorder(length=3)
        for number in range(5):
            recorder.observe(step(number, param_norm=7.0 if number == 3 else None))
        history = recorder.history()
        assert history.losses == (2.0, 3.0, 4.0)
        assert history.grad_norms == (4.0, 6.0, 8.0)
        assert history.param_norms == (7.0,)
        assert history.learning_rates == (0.3, 0.3, 0.3)

    def test_dropped_steps_and_incidents_are_counted_not_remembered(self):
        recorder = HistoryRecorder()
        recorder.observe(step(1))
        recorder.observe(step(2, applied=False), incident=True)
        recorder.observe(step(3), incident=True)
        recorder.observe(StepObservation(step=4, loss=math.nan, grad_norm=1.0))
        history = recorder.history()
        assert (history.incidents, history.skipped) == (2, 1)
        assert history.losses == (1.0,)
        assert history.grad_norms == (2.0, 1.0)

    def test_a_rollback_forgets_what_it_undid(self):
        recorder = HistoryRecorder()
        for number in range(10):
            recorder.observe(step(number))
        recorder.rolled_back(6)
        assert recorder.history().losses[-1] == 5.0
        assert recorder.history().rollbacks == 1

    def test_state_is_plain_and_complete(self):
        recorder, other = HistoryRecorder(), HistoryRecorder()
        for number in range(10):
            recorder.observe(step(number, applied=number != 4))
        other.load_state_dict(json.loads(json.dumps(recorder.state_dict())))
        assert other.history() == recorder.history()
        assert HistoryRecorder().history().losses == ()
