"""Prints a plan as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_plan(plan: dict[str, Any]) -> None:
    """Prints a plan of `xkd.stages.plan.make`."""
    console, one = Console(), plan["ablation"]
    hardware = plan["hardware"]
    console.print(
        f"{one['dataset']}, {one['name']}: {max(one['gpus'], 1)} x {number(hardware['peak'])}FLOP/s at "
        f"{hardware['utilisation']:.0%} utilisation. A multiply-add is 2 FLOPs; matrix products only."
    )
    for name, clips in plan["clips"].items():
        splits = ", ".join(f"{split} {count:,}" for split, count in clips["splits"].items())
        console.print(f"clips of {name}: {splits} (from {clips['source']})", highlight=False)
    for table in (_networks(one), _arithmetic(one), _run(one, plan), _jobs(plan), _ablations(plan)):
        console.print(table)
    if plan["uncounted"]:
        console.print(
            f"not counted, since their encoders are not ours: {', '.join(plan['uncounted'])}", highlight=False
        )
    for warning in plan["warnings"]:
        first, *more = warning["ablations"]
        others = f" (and {len(more)} more)" if more else ""
        line = f"warning: {warning['job']} of {first}{others} {warning['kind']}: {warning['message']}"
        console.print(line, soft_wrap=True, highlight=False)


def number(value: float) -> str:
    """Three digits with a prefix: 1.23 G."""
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return (
                f"{value / 10**power:.3g} {prefix}"
                if value < 10 ** (power + 3)
                else f"{value / 10**power:,.0f} {prefix}"
            )
    return f"{value:.3g} "


def hours(value: float) -> str:
    """Hours with days where they are many; seconds where they are few."""
    if value >= 48:
        return f"{value:,.0f} h ({value / 24:.1f} days)"
    return f"{value:.2g} h" if value >= 0.1 else f"{value * 3600:.2g} s"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left")
    return table


def _networks(one: dict[str, Any]) -> Table:
    table = _table("Parameters and tokens", "", "")
    for name, count in one["parameters"].items():
        if count:
            table.add_row(f"parameters, {name}", f"{count:,}")
    for modality, tokens in one["tokens"].items():
        table.add_row(f"tokens, {modality}, global view", f"{tokens['global_visible']} visible of {tokens['global']}")
        for count in dict.fromkeys(tokens["local"]):
            table.add_row(f"tokens, {modality}, local view", f"{tokens['local'].count(count)} x {count}")
    return table


def _arithmetic(one: dict[str, Any]) -> Table:
    table = _table("FLOPs of one clip", "", "forward", "backward", "share")
    whole = one["flops_per_clip"]["total"]
    for name, part in one["parts_per_clip"].items():
        share = (part["forward"] + part["backward"]) / whole
        table.add_row(name, number(part["forward"]), number(part["backward"]), f"{share:.1%}")
    table.add_section()
    for name, value in one["flops_per_clip"].items():
        table.add_row(
            f"{name} pass" if name != "total" else name, number(value), "", f"{value / whole:.1%}" if whole else ""
        )
    if one["recomputed_per_clip"]:
        table.add_row("recomputed to save memory", number(one["recomputed_per_clip"]), "", "")
    return table


def _run(one: dict[str, Any], plan: dict[str, Any]) -> Table:
    table, storage, clips = _table("One run", "", ""), one["storage"], plan["clips"][one["dataset"]]
    table.add_row("steps", f"{one['steps']:,} ({one['epochs']} epochs, batch {one['batch_size']})")
    table.add_row("FLOPs", number(one["flops"]))
    table.add_row("time", hours(one["hours"]))
    table.add_section()
    for name, value in one["memory"].items():
        table.add_row(f"memory of a process, {name}", f"{number(value)}B")
    table.add_row(
        f"memory of a process, in all ({one['clips_at_once']} clips, {one['precision']})", _bytes(one["memory"])
    )
    table.add_section()
    table.add_row("prepared clips", f"{number(clips['prepared'])}B")
    if clips["packed"]:
        table.add_row("packed clips", f"{number(clips['packed'])}B")
    kept = storage["kept_checkpoints"]
    table.add_row(f"checkpoints, {kept} while it trains", f"{number(kept * storage['checkpoint'])}B")
    table.add_row("encoders", f"{number(storage['encoders'])}B")
    return table


def _jobs(plan: dict[str, Any]) -> Table:
    columns = ("", "GPUs", "hours", "limit", "GPU", "node", "takes", "loads")
    table = _table(f"Jobs of {plan['ablation']['name']}: GB of a GPU and of a node; clips/s", *columns)
    table.columns[0].no_wrap, table.columns[0].overflow = True, "fold"
    for job in plan["jobs"]:
        rates = [(p["clips_per_second"], p["loaded_per_second"]) for p in job["phases"] if p["clips_per_second"]]
        takes, loads = max(rates, key=lambda pair: pair[0] / pair[1], default=(0, 0))
        times = (f"{job['hours']:.1f}", f"{job['runtime_hours']:.3g}")
        sizes = (f"{job['memory'] / 1e9:.1f}", f"{job['main_memory'] / 1e9:.0f}")
        table.add_row(job["job"], str(job["gpus"]), *times, *sizes, f"{takes:,.0f}", f"{loads:,.0f}")
    return table


def _ablations(plan: dict[str, Any]) -> Table:
    seeds, total = plan["seeds"], plan["total"]
    columns = ("ablation", "trainable", "FLOPs a clip", "memory", "one seed", "its evaluations")
    table = _table(f"All ablations, {seeds} seed{'s' * (seeds > 1)}", *columns)
    table.columns[0].no_wrap = True
    swept: dict[str, list[dict[str, Any]]] = {}
    for name, row in plan["ablations"].items():
        if row["sweep"]:
            swept.setdefault(row["sweep"], []).append(row)
            continue
        figures = (number(row["trainable"]), number(row["flops_per_clip"]), f"{number(row['memory'])}B")
        table.add_row(name, *figures, hours(row["hours"]), hours(row["evaluation_hours"]))
    if swept:
        table.add_section()
    for name, rows in swept.items():
        most = [number(max(row[key] for row in rows)) for key in ("trainable", "flops_per_clip", "memory")]
        times = [hours(sum(row[key] for row in rows)) for key in ("hours", "evaluation_hours")]
        table.add_row(f"sweep {name}: {len(rows)}", *most[:2], f"{most[2]}B", *times)
    table.add_section()
    size = number(total["clips_bytes"] + total["encoders_bytes"])
    table.add_row(
        f"{total['runs']} runs",
        "",
        number(total["flops"]),
        f"{size}B disk",
        hours(total["hours"]),
        hours(total["evaluation_hours"]),
    )
    return table


def _bytes(parts: dict[str, float]) -> str:
    return f"{number(sum(parts.values()))}B"
