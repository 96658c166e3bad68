"""Muon with AdamW in one optimizer, against each of them apart."""

import copy

import pytest
import torch
from torch import nn

from mutbert.errors import InputError
from mutbert.training.muon import MuonWith
from mutbert.training.pretrain import pretrain


def matrices_of(model):
    return [model[0].weight, model[1].weight]


def optimizer_of(model):
    groups = [{"params": model.parameters(), "weight_decay": 0.1}]
    return MuonWith(matrices_of(model), torch.optim.AdamW(groups, lr=0.02), lr=0.02, weight_decay=0.1)


def test_steps_are_those_of_muon_and_adamw_apart_also_from_a_saved_state(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4), nn.LayerNorm(4))
    apart, inputs = copy.deepcopy(model), torch.randn(5, 10, 6)
    rest = [one for one in apart.parameters() if not any(one is matrix for matrix in matrices_of(apart))]
    muon = torch.optim.Muon(matrices_of(apart), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    optimizers = [muon, torch.optim.AdamW(rest, lr=0.02, weight_decay=0.1)]
    schedules = [torch.optim.lr_scheduler.ExponentialLR(one, 0.5) for one in optimizers]
    both = optimizer_of(model)
    schedule = torch.optim.lr_scheduler.ExponentialLR(both, 0.5)
    for number, batch in enumerate(inputs):
        if number == 3:
            torch.save([both.state_dict(), schedule.state_dict()], tmp_path / "state.pt")
            both = optimizer_of(model)
            schedule = torch.optim.lr_scheduler.ExponentialLR(both, 0.5)
            states = torch.load(tmp_path / "state.pt", weights_only=True)
            both.load_state_dict(states[0]), schedule.load_state_dict(states[1])
        for one, parts in ((model, [both, schedule]), (apart, [*optimizers, *schedules])):
            one.zero_grad()
            one(batch).square().mul(torch.arange(4)).sum().backward()
            for part in parts:
                part.step()
    for one, other in zip(model.parameters(), apart.parameters(), strict=True):
        assert torch.equal(one, other)
    assert len(both.state_dict()["state"]) == len(list(model.parameters()))


def test_a_torch_without_it_is_an_error(recipe_path, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(
        InputError, match=r"^training: optimizer muon needs torch 2\.9 or later, and this is .*; use adamw$"
    ):
        pretrain(recipe_path, ["optimizer=muon"])
