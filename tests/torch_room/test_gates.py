"""Gates inside of fused recurrent layers: what is computed from the outside is what a loop over the steps gives."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from nan_callbacks.core.gates import GateObservation, taken_together
from nan_callbacks.torch.activations import ActivationProbe
from nan_callbacks.torch.gates import MOST_CALLS

FEATURES, UNITS = 4, 5
NETS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "tanh": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="tanh", **options),
    "relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}
CELLS = {
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
    "tanh": nn.RNNCell,
    "relu": lambda *sizes, **options: nn.RNNCell(*sizes, nonlinearity="relu", **options),
}


def step(kind, weights, x, h, c):
    """Values of the gates, and the next state, by the formulas of torch's documentation."""
    of_input, of_state, *rest = weights
    biases = rest if len(rest) >= 2 else (0.0, 0.0)
    projection = rest[-1] if len(rest) % 2 else None
    fed, kept = x @ of_input.t() + biases[0], h @ of_state.t() + biases[1]
    if kind == "lstm":
        i, f, g, o = (fed + kept).chunk(4)
        gates = (i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid())
        c = gates[1] * c + gates[0] * gates[2]
        h = gates[3] * c.tanh()
        return gates, h if projection is None else projection @ h, c
    if kind == "gru":
        (a, b, n), (p, q, m) = fed.chunk(3), kept.chunk(3)
        r, z = (a + p).sigmoid(), (b + q).sigmoid()
        new = (n + r * m).tanh()
        return (r, z, new), (1 - z) * new + z * h, c
    new = (fed + kept).tanh() if kind == "tanh" else (fed + kept).relu()
    return (new,), new, c


def by_hand(kind, net, rows, start):
    """Values of the gates of each layer and direction, over all rows and steps."""
    directions = 2 if net.bidirectional else 1
    found = {}
    for number, row in enumerate(rows):
        inputs = row
        for layer in range(net.num_layers):
            made = []
            for direction in range(directions):
                index = layer * directions + direction
                h, c = (state[index, number] for state in start)
                states = [h] * len(inputs)
                order = range(len(inputs))
                for at in reversed(order) if direction else order:
                    gates, h, c = step(kind, net.all_weights[index], inputs[at], h, c)
                    states[at] = h
                    found.setdefault(f"l{layer}{'_reverse' * direction}", []).append(gates)
                made.append(torch.stack(states))
            inputs = torch.cat(made, -1)
    return {part: [torch.stack(gate) for gate in zip(*gates, strict=True)] for part, gates in found.items()}


def share(values, kind):
    margin, low = (0.01, 0.0) if kind == "sigmoid" else (0.02, -1.0)
    return float(((values < low + margin) | (values > 1.0 - margin)).double().mean())


def watched(module, call):
    """What is seen of a module's recurrent calls, by the name that a gate has within it."""
    with ActivationProbe(module, in_training=True) as probe:
        call()
    layers = {each.name: each for each in probe.evidence()}
    return {name: each for name, each in layers.items() if each.kind in ("sigmoid", "tanh", "relu")}


def large(module):
    """Weights with which a good part of the gates is saturated."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= 6
    return module


FORMS = {
    "plain": {},
    "without-bias": {"bias": False},
    "batch-first": {"batch_first": True},
    "two-layers": {"num_layers": 2},
    "both-directions": {"bidirectional": True},
    "three-layers-in-both-directions": {"num_layers": 3, "bidirectional": True},
    "projected": {"proj_size": 3},
    "projected-layers-in-both-directions": {"proj_size": 3, "num_layers": 2, "bidirectional": True, "bias": False},
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("start", ["zeros", "given"])
@pytest.mark.parametrize("data", ["rows-of-one-length", "packed"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", NETS)
def test_gates_are_those_of_a_loop_over_the_steps(kind, form, data, start):
    options = FORMS[form]
    if ("proj_size" in options and kind != "lstm") or (data == "packed" and "batch_first" in options):
        pytest.skip("there is no such layer")
    torch.manual_seed(0)
    net = large(NETS[kind](FEATURES, UNITS, **options))
    rows = [torch.randn(steps, FEATURES) for steps in ([6, 3, 8, 1] if data == "packed" else [7] * 5)]
    count = net.num_layers * (2 if net.bidirectional else 1)
    sizes = [(count, len(rows), net.proj_size or UNITS), (count, len(rows), UNITS)]
    first = tuple(torch.randn(size) if start == "given" else torch.zeros(size) for size in sizes)
    given = pack_sequence(rows, enforce_sorted=False) if data == "packed" else None
    given = torch.stack(rows, 0 if net.batch_first else 1) if given is None else given
    hidden = first if kind == "lstm" else first[0]

    seen = watched(net, lambda: net(given, hidden) if start == "given" else net(given))

    with torch.no_grad():
        expected = by_hand(kind, net, rows, first)
    assert len(expected) == count
    compared = 0
    for part, gates in expected.items():
        own = [each for name, each in seen.items() if count == 1 or name.startswith(f"{part}.")]
        for each, values in zip(own, gates, strict=True):
            compared += 1
            if kind == "relu":
                assert each.dead_share == pytest.approx(float((values == 0).all(0).float().mean()))
            else:
                assert each.saturated_share == pytest.approx(share(values, each.kind), abs=1e-5)
    assert compared == count * len(gates)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_gates_of_a_cell_are_told_over_all_its_calls(kind, bias):
    torch.manual_seed(0)
    cell = large(CELLS[kind](FEATURES, UNITS, bias=bias))
    x, state = torch.randn(6, 3, FEATURES), (torch.randn(3, UNITS), torch.randn(3, UNITS))
    expected = []
    for row in range(3):
        h, c = state[0][row], state[1][row]
        for at in range(6):
            with torch.no_grad():
                gates, h, c = step(kind, list(cell.parameters()), x[at, row], h, c)
            expected.append(gates)

    def run():
        hidden = state if kind == "lstm" else state[0]
        for each in x:
            hidden = cell(each, hidden)

    seen = watched(cell, run)

    assert len(seen) == len(expected[0])
    for each, values in zip(seen.values(), zip(*expected, strict=True), strict=True):
        if kind == "relu":
            assert each.dead_share == pytest.approx(float((torch.stack(values) == 0).all(0).float().mean()))
        else:
            assert each.saturated_share == pytest.approx(share(torch.stack(values), each.kind), abs=1e-5)


def test_a_cell_is_looked_at_at_its_first_calls_only(monkeypatch):
    cell, calls = nn.LSTMCell(FEATURES, UNITS), []
    original = torch.special.expit
    linear = nn.GRUCell(FEATURES, UNITS)
    monkeypatch.setattr(torch.special, "expit", lambda x: calls.append(x) or original(x))

    def run():
        hidden = None
        for _ in range(3 * MOST_CALLS):
            hidden = linear(torch.randn(2, FEATURES), hidden)
            cell(torch.randn(2, FEATURES))

    watched(nn.ModuleList([cell, linear]), run)

    assert len(calls) == MOST_CALLS


@pytest.mark.parametrize("kind", NETS)
def test_a_row_without_a_batch_is_looked_at_as_well(kind):
    net = NETS[kind](FEATURES, UNITS)

    assert watched(net, lambda: net(torch.randn(7, FEATURES)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("layers", [1, 2])
def test_gates_in_another_precision_are_about_the_same(dtype, layers):
    torch.manual_seed(0)
    net, x = large(nn.LSTM(FEATURES, 64, layers)), torch.randn(9, 3, FEATURES)
    single = watched(net, lambda: net(x))
    net = net.to(dtype)

    other = watched(net, lambda: net(x.to(dtype)))

    assert other.keys() == single.keys()
    assert all(other[name].saturated_share == pytest.approx(single[name].saturated_share, abs=0.02) for name in single)


def test_gates_are_seen_under_autocast():
    torch.manual_seed(0)
    net, x = large(nn.LSTM(FEATURES, 64)), torch.randn(9, 3, FEATURES)
    single = watched(net, lambda: net(x))

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            net(x)

    mixed = watched(net, run)

    assert all(mixed[name].saturated_share == pytest.approx(single[name].saturated_share, abs=0.02) for name in single)


def test_layers_behind_a_dropout_are_told_as_they_are_in_evaluation():
    torch.manual_seed(0)
    net, x = large(nn.GRU(FEATURES, UNITS, 2, dropout=0.5)), torch.randn(9, 3, FEATURES)

    trained = watched(net, lambda: net(x))
    evaluated = watched(net.eval(), lambda: net(x))

    assert {name: each.saturated_share for name, each in trained.items()} == pytest.approx(
        {name: each.saturated_share for name, each in evaluated.items()}
    )


def test_a_module_that_calls_several_recurrent_functions_is_not_disturbed():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.LSTM(FEATURES, UNITS), nn.GRU(FEATURES, UNITS + 1)

        def forward(self, x):
            one, two = (list(each.parameters()) for each in (self.first, self.second))
            start = x.new_zeros(1, x.shape[1], UNITS)
            options = (True, 1, 0.0, True, False, False)
            torch._VF.lstm(x, (start, start), one, *options)
            return torch._VF.gru(x, x.new_zeros(1, x.shape[1], UNITS + 1), two, *options)[0]

    assert len(watched(Own(), lambda: Own()(torch.randn(7, 3, FEATURES)))) == 4


def test_looking_changes_neither_results_nor_gradients_nor_random_streams():
    def run(watch):
        torch.manual_seed(0)
        net, x = nn.LSTM(FEATURES, UNITS, 2, dropout=0.3, bidirectional=True), torch.randn(9, 3, FEATURES)
        if watch:
            with ActivationProbe(net, in_training=True) as probe:
                loss = net(x)[0].square().sum()
            assert len(probe.evidence()) == 1 + 4 * 4
        else:
            loss = net(x)[0].square().sum()
        loss.backward()
        return loss, [each.grad for each in net.parameters()], torch.get_rng_state()

    (loss, gradients, stream), (same_loss, same_gradients, same_stream) = run(False), run(True)

    assert torch.equal(loss, same_loss)
    assert all(map(torch.equal, gradients, same_gradients))
    assert torch.equal(stream, same_stream)


def test_the_functions_are_put_back():
    before = dict(nn.modules.rnn._rnn_impls), dict(vars(torch._VF))

    watched(nn.LSTM(FEATURES, UNITS), lambda: None)

    assert (dict(nn.modules.rnn._rnn_impls), dict(vars(torch._VF))) == before


@pytest.mark.parametrize("shape", [(0, 3, FEATURES), (7, 0, FEATURES)])
def test_nothing_is_told_of_nothing(shape):
    net = nn.GRU(FEATURES, UNITS)

    def run():
        try:
            net(torch.randn(shape))
        except RuntimeError:
            pytest.skip("torch itself refuses it")

    assert watched(net, run) == {}


def test_gates_without_numbers_have_no_share():
    net = nn.LSTM(FEATURES, UNITS)

    seen = watched(net, lambda: net(torch.full((7, 3, FEATURES), torch.nan)))

    assert [each.saturated_share for each in seen.values()] == [None] * 4


def test_layers_are_told_by_their_least_saturated_gate():
    shares = {"input_gate": 0.9, "forget_gate": 1.0, "candidate": 0.2, "output_gate": 0.7}
    kinds = {name: "tanh" if name == "candidate" else "sigmoid" for name in shares}
    gates = [
        GateObservation(part="l1", name=name, activation=kinds[name], saturated_share=shares[name]) for name in shares
    ]

    (told,) = taken_together(gates)

    assert (told.path, told.activation, told.saturated_share) == ("l1.gates", "sigmoid/tanh", 0.2)


def test_a_layer_with_a_gate_that_cannot_saturate_says_nothing():
    gates = [
        GateObservation(name="update_gate", activation="sigmoid", saturated_share=1.0),
        GateObservation(name="candidate", activation="relu"),
    ]

    assert taken_together(gates) == ()
