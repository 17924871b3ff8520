import colorsys
import math

import pytest
import torch
import torch.nn.functional as nnf
from scipy.ndimage import gaussian_filter
from torchvision.transforms.v2 import functional as tv

from xkd.modalities import audio, colours, video
from xkd.modalities.base import Draw, draw_table
from xkd.settings import AudioView, VideoView


def draws(count: int) -> list[Draw]:
    generator = torch.Generator().manual_seed(0)
    return [Draw.split(row[0].tolist()) for row in draw_table(count, generator)]


def view(**changes) -> VideoView:
    return VideoView(**{"frames": 2, "size": 32, "crop_area": (0, 0), "flip": 0, "jitter": (0, 0, 0, 0), **changes})


def recolouring(settings: VideoView, chosen: list[Draw]) -> colours.Recolouring:
    rows = [[*draw[:10], *draw.jitter, *draw.order, *draw.attempts] for draw in chosen]
    return colours.Recolouring(settings, Draw.split(torch.tensor(rows, dtype=torch.float64).unbind(1)))


def normalised(frames: torch.Tensor, settings: VideoView, draw: Draw) -> torch.Tensor:
    return video.normalised(video.crop(frames, settings, draw)[None], recolouring(settings, [draw]))[0]


def augmented(frames: torch.Tensor, settings: VideoView, draw: Draw) -> torch.Tensor:
    """The view with normalisation undone: (T, 3, size, size) in [0, 1]."""
    mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (normalised(frames, settings, draw) * std + mean).transpose(0, 1)


def coordinates(rows: int = 40, columns: int = 48, frames: int = 2) -> torch.Tensor:
    """Red is the column, green the row, each times 4."""
    frame = torch.zeros(frames, 3, rows, columns, dtype=torch.uint8)
    frame[:, 0] = 4 * torch.arange(columns)
    frame[:, 1] = 4 * torch.arange(rows)[:, None]
    return frame


def noise(frames: int = 2, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (frames, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_plain_crop_cuts_pixels_and_reaches_every_position():
    corners = set()
    for draw in draws(2000):
        pixels = (augmented(coordinates(34, 35), view(), draw) * 255 / 4).round()
        left, top = int(pixels[0, 0, 0, 0]), int(pixels[0, 1, 0, 0])
        assert torch.equal(pixels[1, 0, 5], torch.arange(left, left + 32.0))
        assert torch.equal(pixels[1, 1, :, 5], torch.arange(top, top + 32.0))
        corners.add((top, left))
    assert corners == {(top, left) for top in range(3) for left in range(4)}


def test_resized_crop_areas_and_aspects_stay_in_bounds_and_fill_them():
    areas, aspects = [], []
    for draw in draws(400):
        pixels = augmented(coordinates(60, 60), view(crop_area=(0.2, 0.6)), draw) * 255 / 4
        steps = pixels[0, 0, 16, 24] - pixels[0, 0, 16, 8], pixels[0, 1, 24, 16] - pixels[0, 1, 8, 16]
        width, height = (float(step) / 16 * 32 for step in steps)
        areas.append(width * height / 3600)
        aspects.append(width / height)
    assert 0.18 < min(areas) < 0.23
    assert 0.57 < max(areas) < 0.62
    assert 0.71 < min(aspects) < 0.79
    assert 1.27 < max(aspects) < 1.4
    assert sum(areas) / len(areas) == pytest.approx(0.4, abs=0.03)


def test_resized_crop_of_a_narrow_frame_still_fits():
    for draw in draws(20):
        assert augmented(coordinates(16, 60), view(crop_area=(0.9, 1)), draw).shape == (2, 3, 32, 32)


def test_one_draw_serves_all_frames():
    settings = view(crop_area=(0.2, 1), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.2), grey=0.5, blur=0.5)
    still = noise(1, 48).expand(4, -1, -1, -1)
    for draw in draws(20):
        frames = normalised(still, settings, draw)
        assert torch.equal(frames, frames[:, :1].expand_as(frames))


def test_flip_mirrors_columns_as_often_as_asked():
    frame, flipped = noise(), 0
    for draw in draws(400):
        result = augmented(frame, view(flip=0.3), draw) * 255
        mirrored = torch.allclose(result, frame.flip(-1).float(), atol=1e-2)
        assert mirrored or torch.allclose(result, frame.float(), atol=1e-2)
        flipped += mirrored
    assert 0.23 < flipped / 400 < 0.37


def shift(draw: Draw, kind: int, strength: float) -> float:
    return strength * (2 * draw.jitter[kind] - 1)


def test_brightness_scales_and_clips():
    frame = noise().float() / 255
    for draw in draws(10):
        expected = (frame * (1 + shift(draw, 0, 0.4))).clamp(0, 1)
        torch.testing.assert_close(augmented(noise(), view(jitter=(0.4, 0, 0, 0)), draw), expected, atol=1e-5, rtol=0)


def test_contrast_blends_with_the_mean_grey_of_each_frame():
    frame = noise().float() / 255
    grey = (frame * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(1).mean((1, 2)).view(-1, 1, 1, 1)
    for draw in draws(10):
        expected = (grey + (frame - grey) * (1 + shift(draw, 1, 0.4))).clamp(0, 1)
        torch.testing.assert_close(augmented(noise(), view(jitter=(0, 0.4, 0, 0)), draw), expected, atol=1e-4, rtol=0)


def test_saturation_blends_with_grey():
    frame = noise().float() / 255
    grey = (frame * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    for draw in draws(10):
        expected = (grey + (frame - grey) * (1 + shift(draw, 2, 0.4))).clamp(0, 1)
        torch.testing.assert_close(augmented(noise(), view(jitter=(0, 0, 0.4, 0)), draw), expected, atol=1e-4, rtol=0)


def test_hue_turns_the_colour_wheel():
    colour = torch.tensor([200, 60, 90], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 32, 32)
    hue, saturation, value = colorsys.rgb_to_hsv(200 / 255, 60 / 255, 90 / 255)
    for draw in draws(10):
        expected = colorsys.hsv_to_rgb((hue + shift(draw, 3, 0.2)) % 1, saturation, value)
        pixel = augmented(colour, view(jitter=(0, 0, 0, 0.2)), draw)[0, :, 0, 0]
        torch.testing.assert_close(pixel, torch.tensor(expected), atol=2e-3, rtol=0)


def test_jitter_steps_come_in_random_order():
    settings, orders = view(jitter=(0.4, 0.4, 0, 0)), set()
    for draw in draws(50):
        frame = noise().float() / 255
        both = augmented(noise(), settings, draw)
        bright, contrast = 1 + shift(draw, 0, 0.4), 1 + shift(draw, 1, 0.4)

        def brighten(x, factor=bright):
            return (x * factor).clamp(0, 1)

        def stretch(x, factor=contrast):
            grey = (x * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(1).mean((1, 2)).view(-1, 1, 1, 1)
            return (grey + (x - grey) * factor).clamp(0, 1)

        candidates = {"bright first": stretch(brighten(frame)), "contrast first": brighten(stretch(frame))}
        matches = [name for name, value in candidates.items() if torch.allclose(both, value, atol=1e-4)]
        assert matches
        orders.update(matches if len(matches) == 1 else [])
    assert orders == {"bright first", "contrast first"}


def test_grey_makes_channels_equal_as_often_as_asked():
    grey = 0
    for draw in draws(200):
        frame = augmented(noise(), view(grey=0.2), draw)
        grey += torch.allclose(frame[:, 0], frame[:, 1], atol=1e-5)
    assert 0.12 < grey / 200 < 0.28


def test_blur_is_gaussian_with_the_drawn_sigma():
    for draw in draws(10):
        sigma = 0.1 + 1.9 * draw.sigma
        frame = noise().float().numpy() / 255
        expected = gaussian_filter(frame, (0, 0, sigma, sigma), mode="mirror", radius=math.ceil(3 * sigma))
        blurred = augmented(noise(), view(blur=1), draw)
        torch.testing.assert_close(blurred, torch.from_numpy(expected), atol=1e-4, rtol=0)


def plain(frames: torch.Tensor, settings: VideoView, draw: Draw) -> torch.Tensor:
    """The same view by torchvision's operations, one after the other, on whole float frames."""
    frame = video.crop(frames, settings, draw).contiguous().float() / 255
    operations = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for kind in sorted(range(4), key=draw.order.__getitem__):
        change = shift(draw, kind, settings.jitter[kind])
        frame = operations[kind](frame, change if kind == 3 else 1 + change)
    if draw.grey < settings.grey:
        frame = tv.rgb_to_grayscale(frame, num_output_channels=3)
    if draw.blur < settings.blur:
        sigma = 0.1 + 1.9 * draw.sigma
        frame = tv.gaussian_blur(frame, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2)
    return tv.normalize(frame, video.IMAGENET_MEAN, video.IMAGENET_STD).transpose(0, 1)


@pytest.mark.parametrize("settings", [VideoView(), VideoView(size=96, crop_area=(0.08, 0.4), grey=0.2, blur=0.5)])
def test_released_views_are_those_of_plain_torchvision(settings):
    frames = noise(16, 128)
    frames[0] = 77  # no colour at all
    frames[1, 0] = frames[1, 1]  # two channels tie
    for draw in draws(12):
        view = normalised(frames, settings, draw)
        torch.testing.assert_close(view, plain(frames, settings, draw), atol=1e-4, rtol=0)


def test_default_jitter_is_that_of_torchvision_but_for_rounding():
    settings = view(jitter=(0.2, 0.2, 0, 0))
    for draw in draws(20):
        frame = noise(8).float() / 255
        for kind in sorted((0, 1), key=draw.order.__getitem__):
            operation = (tv.adjust_brightness, tv.adjust_contrast)[kind]
            frame = operation(frame, 1 + (-0.2 + draw.jitter[kind] * 0.4))
        expected = tv.normalize(frame, video.IMAGENET_MEAN, video.IMAGENET_STD).transpose(0, 1)
        torch.testing.assert_close(normalised(noise(8), settings, draw), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "jitter", [(0.4, 0.4, 0.4, 0.2), (0.2, 0.2, 0, 0), (0, 0, 0.4, 0), (0.3, 0, 0, 0.1), (0, 0, 0, 0.2), (0, 0, 0, 0)]
)
@pytest.mark.parametrize("values", [2**26, 8 * 3 * 3 * 32 * 32, 3 * 32 * 32], ids=["all", "some clips", "one frame"])
@pytest.mark.parametrize("masks", [False, True], ids=["processor", "GPU"])
def test_a_batch_gets_for_each_clip_what_it_would_get_alone(jitter, values, masks, monkeypatch):
    """To the last bit, however many clips and frames are changed at once, and by the masks of a GPU, too."""
    settings = view(size=32, jitter=jitter, grey=0.3, blur=0.5)
    clips, chosen = torch.stack([noise(3), noise(3).flip(0), noise(3).flip(-1), noise(3).flip(-2)] * 10), draws(40)
    alone = [normalised(clip, settings, draw) for clip, draw in zip(clips, chosen, strict=True)]
    monkeypatch.setattr(video, "CACHE_VALUES", values)
    if masks:
        monkeypatch.setattr(colours, "_any", lambda chosen: True)
    assert torch.equal(video.normalised(clips, recolouring(settings, chosen)), torch.stack(alone))


def test_volume_gain_is_uniform_within_its_bounds():
    gains = [audio.volume_gain(AudioView(volume=0.2), draw) for draw in draws(400)]
    assert 0.8 <= min(gains) < 0.82
    assert 1.18 < max(gains) <= 1.2
    assert sum(gains) / 400 == pytest.approx(1, abs=0.02)


def box(draw: Draw) -> torch.Tensor:
    return torch.tensor([[draw.height, draw.width, draw.row, draw.column]], dtype=torch.float64)


def test_logmel_crop_of_the_middle_box_is_the_identity():
    logmel = torch.randn(1, 40, 48, generator=torch.Generator().manual_seed(0))
    same = (1 - 0.6) / 0.9 + 1e-9  # a scale of 1 on both axes
    box = torch.tensor([[same, same, 0.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(audio.resized_crop_logmel(logmel[None], box)[0], logmel, atol=1e-5, rtol=0)


def test_logmel_crop_is_bicubic_interpolation_of_a_padded_canvas():
    logmels, chosen = torch.randn(12, 1, 80, 112, generator=torch.Generator().manual_seed(0)), draws(12)
    cropped = audio.resized_crop_logmel(logmels, torch.cat([box(draw) for draw in chosen]))
    for logmel, draw, result in zip(logmels, chosen, cropped, strict=True):
        height, width = min(int((0.6 + 0.9 * draw.height) * 80), 80), min(int((0.6 + 0.9 * draw.width) * 112), 168)
        top, left = int(draw.row * (80 - height + 1)), int(draw.column * (168 - width + 1))
        inside = nnf.pad(logmel, (28, 28))[None, :, top : top + height, left : left + width]
        expected = nnf.interpolate(inside, size=(80, 112), mode="bicubic", align_corners=True)[0]
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


def test_logmel_crop_resizes_a_box_of_a_longer_canvas():
    bands, steps = 40, 48
    ramp = torch.arange(1.0, bands + 1).view(1, -1, 1).expand(1, bands, steps)  # >= 1, so zeros are canvas
    saw_canvas = saw_inside = False
    for draw in draws(100):
        crop = audio.resized_crop_logmel(ramp[None], box(draw))[0]
        assert crop.shape == ramp.shape
        height = min(int((0.6 + 0.9 * draw.height) * bands), bands)
        width = min(int((0.6 + 0.9 * draw.width) * steps), 72)
        left = int(draw.column * (72 - width + 1))
        centre = left + (width - 1) / 2 - 12  # middle of the box, in columns of the log-mel
        if not 3 < centre < steps - 4:
            continue
        column = crop[0, :, steps // 2]
        assert float(column[-1] - column[0]) == pytest.approx(height - 1, abs=0.05)
        inside = left >= 12 and left + width <= 60
        assert inside == (crop.min() > 0.5)
        saw_canvas, saw_inside = saw_canvas or not inside, saw_inside or inside
    assert saw_canvas
    assert saw_inside
