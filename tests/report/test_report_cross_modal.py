"""Neighbours across modalities, and the images and audio that show them."""

import base64
import io
import re
import wave

import matplotlib.image
import numpy as np
import pytest
import torch
from invented import SEEDS
from run_folders import seal

from xkd.report import cross_modal
from xkd.report.collect import collect
from xkd.report.previews import Previews, previews_at_hand


class Store:
    """12 clips of three seconds; the frames of clip i are 20 i bright."""

    def __init__(self):
        self.ids = [f"clip{number}" for number in range(12)]

    def video(self, index):
        return torch.full((8, 3, 16, 16), 20 * index, dtype=torch.uint8)

    def audio(self, index):
        return 0.05 * index * torch.sin(torch.arange(48000) / 10)


@pytest.fixture
def media(project):
    return Previews(Store(), project.params)


def content(uri, kind):
    head, _, data = uri.partition(",")
    assert head == f"data:{kind};base64"
    return io.BytesIO(base64.b64decode(data))


def test_rank_of_the_other_half_by_hand():
    similarity = np.array([[0.9, 0.1, 0.5], [0.7, 0.2, 0.3], [0.4, 0.4, 0.4]])
    assert cross_modal.ranks_of_pairs(similarity).tolist() == [1, 3, 3], "ties count against it"


def test_similarity_is_the_cosine_of_what_differs_from_the_mean():
    shift, queries = np.array([7.0, -2.0]), np.array([[3.0, 0.0], [1.0, 1.0], [-4.0, -1.0]])
    gallery = np.array([[0.0, 2.0], [5.0, 0.0], [-5.0, -2.0]])
    by_hand = [[q @ g / np.linalg.norm(q) / np.linalg.norm(g) for g in gallery] for q in queries]
    np.testing.assert_allclose(cross_modal.similarities(queries + shift, gallery - shift), by_hand, atol=1e-6)


def test_table_tells_before_from_after(project):
    table = cross_modal.shared_space_table(collect(project.params))
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert set(rows) == {"xkd", "no_refinement"}, "the others have no heads"
    assert rows["xkd"]["own other half nearest, after"] == rows["xkd"]["nearest has the same label, after"] == "100.0"
    assert float(rows["xkd"]["own other half nearest, before"]) < 50


def test_chance_of_uneven_labels():
    arrays = {"ids": np.arange(20), "labels": np.array(["a"] * 15 + ["b"] * 5)}
    assert cross_modal.random_rates(arrays) == pytest.approx((5, 50, 100 * (0.75**2 + 0.25**2)))


def test_examples_name_the_nearest_and_mark_labels_and_pairs(project, media):
    found = cross_modal.retrieved(collect(project.params), media)
    assert (found.run.ablation, found.clips) == ("xkd", 12)
    assert [example.query.modality for example in found.found] == 4 * ["video"] + 4 * ["audio"]
    assert len({(example.query.id, example.query.modality) for example in found.found}) == 8
    for example in found.found:
        first, *others = example.neighbours
        assert first.is_pair
        assert first.same_label
        assert first.clip.id == example.query.id
        assert example.rank == 1
        assert not any(other.is_pair for other in others)
        assert all(other.same_label == (other.clip.label == example.query.label) for other in others)
        assert [n.similarity for n in example.neighbours] == sorted(
            (n.similarity for n in example.neighbours), reverse=True
        )
        assert (example.query.sound is None) == (example.query.modality == "video") != (first.clip.sound is None)


def test_sound_is_the_beginning_of_the_clip(media):
    with wave.open(content(media.sound("clip7"), "audio/wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16000, 1, 32000)
        samples = np.frombuffer(file.readframes(32000), "<i2") / 32767
    np.testing.assert_allclose(samples, Store().audio(7)[:32000], atol=1e-4)


def test_images_are_those_of_the_clip(media):
    strip = matplotlib.image.imread(content(media.strip("clip5"), "image/png"))
    assert strip.shape[:2] == (16, 4 * 16 + 3)
    np.testing.assert_allclose(strip[:, :16, :3], 100 / 255, atol=0.01)
    quiet, loud = (matplotlib.image.imread(content(media.spectrogram(c), "image/png")) for c in ("clip0", "clip9"))
    assert np.ptp(quiet[..., 0]) == 0 < np.ptp(loud[..., 0])


def test_page_plays_audio_and_shows_images(project, report, media):
    from xkd.report import page

    words = dict.fromkeys(page.FIGURES, "words")
    text = page.html(project.shown(), collect(project.params), page.Figures(report / "figures", words), media)
    assert text.count("<audio controls") == text.count('src="data:audio/wav;base64,') == 4 * 4 + 4
    assert len(re.findall(r'class="clip asked"', text)) == 8
    assert "words alone" not in text


def test_removed_clips_leave_words(project, report):
    assert previews_at_hand(project.params, project.root / "data" / "digits") is None
    text = project.html(report / "figures")
    assert "words alone" in text
    assert "<audio" not in text
    assert "video of “0”" in text


def test_ids_that_are_paths_of_this_machine_are_shown_by_their_ends():
    ids = [
        "/home/me/a/dog/1",
        "/home/me/b/dog/1",
        "/home/me/a/cat/2",
        "../up/cat/3",
        r"C:\\Users\\me\\4",
        "~/me/5",
        "dog/1",
    ]
    shown = cross_modal.shown_ids(ids)
    assert shown == ["a/dog/1", "b/dog/1", "2", "3", "4", "5", "dog/1"]
    assert cross_modal.shown_ids(["/a/b", "/x/a/b"]) == ["a/b", "x/a/b"]


def test_the_page_holds_no_path_of_this_machine(project, report):
    for seed in SEEDS:
        path = project.run_folder("xkd", seed) / "embeddings.npz"
        with np.load(path) as archive:
            arrays = dict(archive)
        arrays["ids"] = np.array([f"/home/me/secret/{number}/clip" for number in range(12)])
        np.savez(path, **arrays)
        seal(path.parent)
    text = project.html(report / "figures")
    assert "secret" not in text
    assert '<span class="id">3/clip</span>' in text
