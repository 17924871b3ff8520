import pytest
import torch
import torch.nn.functional as F
from downstream_fakes import Loader, TinyEncoder, finetuned, rows

from xkd.downstream.finetune_learner import Classifier, layer_groups
from xkd.errors import UserError
from xkd.settings import Finetune

SETTINGS = Finetune(epochs=12, learning_rate=0.01, layer_decay=0.5, weight_decay=0.05)


def train(encoders, seed=0, settings=SETTINGS, clips=48, noise=0.3):
    loader = Loader(rows(clips), batch_size=8, noise=noise)
    return finetuned(encoders, loader, settings, seed), loader


def loss_of(model, modality="video"):
    batches = list(Loader(rows(48), batch_size=8, noise=0.3))
    with torch.no_grad():
        logits = torch.cat([model(batch.views[modality][0]) for batch in batches])
    return F.cross_entropy(logits, torch.arange(48) % 3).item()


def test_learning_rate_halves_with_every_layer_below_the_head():
    model = Classifier(TinyEncoder(depth=3), 3, seed=0)
    groups = list(layer_groups(model, Finetune(learning_rate=0.8, layer_decay=0.5, weight_decay=0.05)))
    found = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(found) == sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    encoder = model.encoder
    expected = {
        model.head: 0.8,
        encoder.norm: 0.8,
        encoder.blocks[2]: 0.4,
        encoder.blocks[1]: 0.2,
        encoder.blocks[0]: 0.1,
        encoder.embed: 0.05,
    }
    for module, rate in expected.items():
        for parameter in module.parameters():
            assert found[id(parameter)] == (pytest.approx(rate), 0.05 if parameter.ndim > 1 else 0)
    assert found[id(encoder.cls_token)][0] == found[id(encoder.positions)][0] == pytest.approx(0.05)


def test_finetuning_learns_what_the_views_hold():
    encoder = TinyEncoder()
    untrained = loss_of(Classifier(encoder, 3, seed=0))
    models, loader = train({"video": encoder, "audio": TinyEncoder(seed=1)})
    assert untrained > 1.0
    assert loss_of(models["video"]) < 0.6  # label smoothing keeps it above 0
    assert loss_of(models["audio"], "audio") < 0.6
    assert loader.epochs == list(range(12))


def test_labels_without_meaning_are_not_learned():
    class Shuffled(Loader):
        def __iter__(self):
            for batch in super().__iter__():
                batch.labels = batch.labels[torch.randperm(len(batch.labels), generator=self.generator)]
                yield batch

    loader = Shuffled(rows(48), batch_size=8, noise=0.3)
    loader.generator = torch.Generator().manual_seed(0)
    assert loss_of(finetuned({"video": TinyEncoder()}, loader, SETTINGS, 0)["video"]) > 0.9


def test_all_layers_move_and_the_given_encoder_does_not():
    encoder = TinyEncoder().requires_grad_(False)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    models, _ = train({"video": encoder})
    after = models["video"].encoder.state_dict()
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])
        assert not torch.equal(after[name], before[name]) or name == "positions"


def test_shared_blocks_are_tuned_for_each_modality_alone():
    video, audio = TinyEncoder(seed=0), TinyEncoder(seed=1)
    audio.blocks = video.blocks
    together, _ = train({"video": video, "audio": audio})
    alone, _ = train({"video": video})
    for name, value in alone["video"].state_dict().items():
        assert torch.equal(value, together["video"].state_dict()[name])


def test_two_runs_are_identical_and_seeds_differ():
    first, second, other = (train({"video": TinyEncoder()}, seed)[0]["video"].state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_divergence_stops_with_the_setting_to_change():
    encoder = TinyEncoder()
    with torch.no_grad():
        encoder.embed.weight.fill_(float("inf"))
    with pytest.raises(UserError, match="evaluate.finetune.learning_rate"):
        train({"video": encoder})
