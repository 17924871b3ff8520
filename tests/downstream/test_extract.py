import numpy as np
import torch
from downstream_fakes import Loader, rows

from xkd.downstream.features import of_rows, outputs_of

NETWORKS = {
    ("student", "video"): lambda x: x,
    ("student", "audio"): lambda x: 2 * x,
    ("teacher", "video"): lambda x: -x,
}


def test_every_network_sees_every_clip_in_one_pass():
    passes, batches = [], list(Loader(rows(10)))
    for ids, outputs in outputs_of(NETWORKS, (passes.append(batch.ids) or batch for batch in batches)):
        batch = batches[len(passes) - 1]
        assert ids == passes[-1] == batch.ids
        for key, factor in zip(NETWORKS, (1, 2, -1), strict=True):
            np.testing.assert_array_equal(outputs[key][:, 0], factor * batch.views[key[1]][0].numpy())
    assert len(passes) == 3


def test_half_precision_runs_under_autocast_and_comes_as_float32():
    layer, batch = torch.nn.Linear(3, 5), next(iter(Loader(rows(4))))
    ((_, outputs),) = outputs_of({("student", "video"): layer}, [batch], "bfloat16")
    half = [part.bfloat16() for part in (batch.views["video"][0], layer.weight, layer.bias)]
    found = outputs["student", "video"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:, 0], torch.nn.functional.linear(*half).detach().float().numpy())


def test_known_provenance_is_kept_and_unknown_makes_an_item_of_each_clip():
    clips = of_rows(rows(6, scans=2), {})
    assert clips.items["video"].tolist() == ["scan0", "scan1"] * 3
    assert clips.items["audio"].tolist() == clips.ids.tolist()
    assert [len(clips.items_of(m)) for m in ("video", "audio", "both")] == [1, 1, 1]
    assert clips.items_of("audio")[0] is clips.items["audio"]
    assert clips.items_of("both")[0] is clips.items["video"], "each sound lies within one scan"
