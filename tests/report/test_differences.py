"""The figure of differences: what stands where, computed by hand from the invented figures."""

import numpy as np
import pytest
from invented import SEEDS

from xkd.report.collect import collect
from xkd.report.differences import difference_plot
from xkd.report.style import plt


@pytest.fixture
def drawn(project):
    """Draws the project as it stands then."""
    yield lambda: difference_plot(collect(project.params))
    plt.close("all")


def panel(figure, title):
    return next(axis for axis in figure.axes if axis.get_visible() and axis.get_title(loc="left") == title)


def marks(axis):
    """Per row: place of its mark, and whether it is a dot or a cross."""
    found = {}
    for line in axis.lines:
        if line.get_marker() in ("o", "x"):
            (x,), (row,) = line.get_data()
            found[row] = (float(x), "cross" if line.get_marker() == "x" else "dot")
    return found


def test_rows_stand_at_their_differences_with_their_intervals(drawn):
    figure = drawn()
    axis = panel(figure, "video, linear probe")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "xkd", "recon_video", "no_refinement", "random_init"
    ]  # fmt: skip
    assert marks(axis)[0] == (pytest.approx(5.0), "dot")  # 4, 6 and 5 points
    assert marks(axis)[1] == (pytest.approx(0.0), "dot")  # 0.5, -1 and 0.5
    (interval,) = [line.get_xdata() for line in axis.lines if list(line.get_ydata()) == [0, 0]]
    half = 4.302653 / np.sqrt(3)  # t with 2 degrees of freedom; the differences' deviation is 1
    np.testing.assert_allclose(interval, (5 - half, 5 + half), rtol=1e-6)


def test_differences_that_do_not_vary_are_crosses_without_interval(drawn):
    assert marks(panel(drawn(), "audio, linear probe"))[0] == (0.0, "cross")


def test_a_baseline_alone_has_nothing_to_differ(project, drawn):
    project.values["ablations"] = {"ae": project.values["ablations"]["ae"]}
    project.values["tasks"]["finetune"]["ablations"] = ["ae"]
    assert drawn().get_label() == "No row of this table shares a task with ae."


def test_a_method_without_video_names_its_rows_beside_audio(project, drawn):
    for name in ("xkd", "ae"):
        for seed in SEEDS:
            path = project.scores_file(name, seed, "finetune")
            path.write_text(path.read_text().replace("student.video.finetune", "student.audio.finetune"))
    axis = panel(drawn(), "audio, finetuned")
    assert [(label.get_text(), label.get_visible()) for label in axis.get_yticklabels()] == [("xkd", True)]
    assert axis.yaxis.get_tick_params()["labelleft"]
