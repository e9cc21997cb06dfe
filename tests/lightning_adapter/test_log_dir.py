"""A step that writes into the folder of its logger: trials write elsewhere, and leave nothing behind."""

from pathlib import Path

import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F

from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.runs import TinyModule, loader, seed_all, tiny_trainer


class Saving(TinyModule):
    """Saves a picture of every batch, as Lightning's documentation of ``trainer.log_dir`` shows it."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 1)
        self.folders = set()

    def training_step(self, batch, batch_idx):
        folder = Path(self.trainer.log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{batch_idx}.txt").write_text("a picture")
        assert Path(self.logger.save_dir).exists()
        return F.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_trials_have_a_folder_of_their_own(tmp_path):
    seed_all()
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(8, 4, generator=generator), torch.randn(8, 1, generator=generator)) for _ in range(12)]
    batches[9][0][3, 1] = float("nan")
    guard = NaNGuard(strict=True)
    trainer = tiny_trainer(guard)
    trainer.loggers = [CSVLogger(tmp_path)]
    trainer.fit(Saving(), loader(batches))
    (incident,) = guard.incidents
    assert incident.diagnosis.cause.code == "DATA501"
    assert incident.diagnosis.cause.confidence.value == "confirmed"
    assert not [note for note in guard.checkup_report.notes if "raise" in note]
    written = sorted(path.name for path in tmp_path.rglob("*.txt"))
    assert written == sorted(f"{index}.txt" for index in range(12))
