"""README.md beside weights: the model card, with front matter that the hub reads.

Front matter is a block of YAML at the top. `model-index` there holds figures of evaluations, `Score`; they exist only
after training, so that a run's own cards have none, and `xkd push` sends cards that do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from xkd.encoders.config import EncoderConfig

ARXIV = "2211.13929"
TITLE = "XKD: Cross-modal Knowledge Distillation with Domain Alignment for Video Representation Learning"
AUTHORS = ("Sarkar, Pritam", "Etemad, Ali")
VENUE = "Proceedings of the AAAI Conference on Artificial Intelligence"
YEAR = 2024
TRAINED_ON = re.compile(r"trained with xkd on (\w+): |released file [A-Z]+_pretext_([a-z0-9]+)_")
# Of the licences that the hub has names for, those that weights often have.
LICENCES = ("mit", "apache-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0")
TASKS = {"video": "video-classification", "audio": "audio-classification"}
METRICS = {"top1": "accuracy", "top5": "top-5-accuracy", "map": "mean-average-precision"}


@dataclass(frozen=True)
class Score:
    """One figure of an evaluation.

    Attributes:
        name: column and metric, such as student.video.linear.top1.
        task: entry of `tasks` that it is of.
        dataset: of the test clips.
        manifest: version of that data set.
        clips: how many test clips there were.
        interval: 95 %, where there is one.
        paired: it is of the encoders of both modalities.
    """

    name: str
    task: str
    dataset: str
    manifest: str
    clips: int
    value: float
    interval: tuple[float, float] | None
    paired: bool

    @property
    def modality(self) -> str:
        """Modality of the test clips: video, audio or both."""
        return self.name.split(".")[1]

    @property
    def metric(self) -> str:
        """Last part of the name."""
        return self.name.rsplit(".", 1)[1]

    def is_about(self, config: EncoderConfig) -> bool:
        """Returns whether it is of this encoder alone."""
        return self.name.startswith(f"{config.owner}.{config.modality}.") and not self.paired


@dataclass(frozen=True)
class Known:
    """What a card says beyond the configs.

    Attributes:
        name: what `from_pretrained` takes; empty for a folder.
        clips: what it was trained on in numbers, such as "2,600 clips".
        scores: of evaluations.
    """

    name: str = ""
    clips: str = ""
    scores: tuple[Score, ...] = ()


NOTHING = Known()


def card(configs: Mapping[str, EncoderConfig], known: Known = NOTHING) -> str:
    """Returns the card of one encoder, or of the encoders of a run.

    Args:
        configs: by subfolder; "" for none.
    """
    first, *others = configs.values()
    title = "XKD encoders of one training" if others else f"XKD {first.modality} encoder ({first.owner})"
    front = yaml.safe_dump(_front_matter(title, configs, known.scores), sort_keys=False, allow_unicode=True, width=1000)
    sections = {
        "Use": _use(configs, known.name),
        "Training": _training(configs, known.clips),
        "Evaluation": _evaluation(known.scores),
        "Not tested": _untested(configs, known.scores),
        "Licence": "\n".join(f"- {licence}" for licence in _unique(one.licence for one in configs.values())),
        "Citation": _citation(),
    }
    networks = [f"{f'`{place}`: ' if others else ''}{_network(config)}" for place, config in configs.items()]
    described = [*networks, *(f"## {name}\n\n{text}" for name, text in sections.items())]
    return f"---\n{front}---\n\n" + "\n\n".join([f"# {title}", *described]) + "\n"


def _front_matter(title: str, configs: Mapping[str, EncoderConfig], scores: Collection[Score]) -> dict[str, Any]:
    modalities = _unique(config.modality for config in configs.values())
    datasets = _datasets(configs)
    return {
        "library_name": "xkd",
        "pipeline_tag": "feature-extraction",
        **_licence({config.licence for config in configs.values()}),
        "tags": ["xkd", *modalities, "self-supervised-learning", f"arxiv:{ARXIV}"],
        **({"datasets": datasets} if datasets else {}),
        **({"model-index": _model_index(title, scores)} if scores else {}),
    }


def _licence(stated: Collection[str]) -> dict[str, str]:
    """Returns the hub's name of a licence, or `other` and a name that the hub accepts."""
    words = " ".join(next(iter(stated)).split(" (")[0].split()) if len(stated) == 1 else "several"
    name = re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-.") or "not-stated"
    return {"license": name} if name in LICENCES else {"license": "other", "license_name": name}


def _model_index(name: str, scores: Collection[Score]) -> list[dict[str, Any]]:
    """Returns figures in the hub's form: an entry for each kind of task and data set."""
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    for score in scores:
        kind = "other" if score.paired else TASKS.get(score.modality, "other")
        name_of_data = f"{score.dataset}, manifest {score.manifest}"
        data = {"name": name_of_data, "type": score.dataset, "split": "test"}
        entry = entries.setdefault((kind, name_of_data), {"task": {"type": kind}, "dataset": data, "metrics": []})
        called = f"{score.name} (task {score.task})"
        entry["metrics"].append({"type": METRICS.get(score.metric, score.metric), "value": score.value, "name": called})
    return [{"name": name, "results": list(entries.values())}]


def _network(config: EncoderConfig) -> str:
    plugin = f" of {PurePath(config.plugin).name}" if config.plugin else ""
    return (
        f"Backbone `{config.arch}`{plugin}: width {config.width}, "
        f"depth {config.depth}, {config.heads} heads, patches of {' x '.join(map(str, config.patch))}. "
        f"Trained on views of {config.input.seconds:g} s: {config.input}."
    )


def _use(configs: Mapping[str, EncoderConfig], name: str) -> str:
    function = "PretrainedEncoder.from_pretrained" if name else "load_encoder"
    lines = [f"from xkd import {function.split('.')[0]}"]
    for place, config in configs.items():
        subfolder = f', subfolder="{place}"' if place else ""
        where = f'"{name}"{subfolder}' if name else f'"{place or "this folder"}"'
        lines += ["", f"encoder = {function}({where})", f"{config.input.CALL} -> ({config.width},)"]
    return "\n".join(["```python", *lines, "```"])


def _training(configs: Mapping[str, EncoderConfig], clips: str) -> str:
    origins = _unique(config.origin for config in configs.values())
    named = f"Data: {', '.join(f'`{name}`' for name in _datasets(configs)) or 'not known'}"
    return "\n".join([*(f"- Origin: {origin}" for origin in origins), f"- {named}{f' ({clips})' if clips else ''}"])


def _evaluation(scores: Collection[Score]) -> str:
    if not scores:
        return "No evaluation came with these weights."
    rows = [
        f"| {one.task} | {one.dataset} | {one.clips:,} | {one.name} | {one.value:.2f} |"
        f" {'–'.join(f'{end:.2f}' for end in one.interval) if one.interval else ''} |"
        for one in scores
    ]
    head = "| task | data set | test clips | figure | value | 95 % interval |\n| --- | --- | --- | --- | --- | --- |"
    return "Of these weights; other seeds have other figures. Rates are percent.\n\n" + "\n".join([head, *rows])


def _untested(configs: Mapping[str, EncoderConfig], scores: Collection[Score]) -> str:
    tested = ", ".join(f"`{name}`" for name in _unique(score.dataset for score in scores))
    lengths = ", ".join(_unique(f"{config.input.seconds:g} s" for config in configs.values()))
    return "\n".join(
        [
            f"- {f'Data other than {tested}' if tested else 'Any data'}: scenes, cameras, microphones, languages.",
            f"- Clips that are longer or shorter than a view ({lengths}): positions are interpolated.",
            "- Noise and other disturbances that are not in the test clips.",
            "- Differences between groups of people, and any use that decides about people.",
        ]
    )


def _citation() -> str:
    entry = {"title": TITLE, "author": " and ".join(AUTHORS), "booktitle": VENUE, "year": YEAR, "eprint": ARXIV}
    fields = ",\n".join(f"  {key} = {{{value}}}" for key, value in entry.items())
    return f"The method is of this paper:\n\n```bibtex\n@inproceedings{{xkd,\n{fields}\n}}\n```"


def _datasets(configs: Mapping[str, EncoderConfig]) -> list[str]:
    """Returns the data sets that the origins name, each once."""
    found = [match for config in configs.values() for match in TRAINED_ON.finditer(config.origin)]
    return _unique(match[1] or match[2] for match in found)


def _unique(words: Any) -> list[str]:
    return list(dict.fromkeys(words))
