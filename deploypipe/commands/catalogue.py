"""`models`, `datasets` and `formats`: what there is by name."""

from typing import Annotated

import typer

from deploypipe.commands import options
from deploypipe.commands.output import Document, listing, next_commands, note, out


def models(name: Annotated[str | None, typer.Argument(help="One network: its layers.")] = None) -> Document:
    """The networks of the zoo, with parameter counts; with a name, its layers."""
    from deploypipe.models import MODELS
    from deploypipe.models.layers import layers_of

    if name is not None:
        text = layers_of(name)
        out.print(text)
        return {"model": name, "layers": text}
    counts = {key: sum(p.numel() for p in entry.build().parameters()) for key, entry in MODELS.items()}
    listing(
        ("model", "parameters", "what it is", "trains on"),
        [(key, f"{counts[key]:,}", entry.summary, ", ".join(entry.datasets) or "–") for key, entry in MODELS.items()],
    )
    next_commands(["models", "cnn"], ["train", "--model", "cnn"])
    return {"models": [{"name": key, "parameters": counts[key], "summary": entry.summary,
                        "datasets": list(entry.datasets)} for key, entry in MODELS.items()]}  # fmt: skip


def datasets(data_dir: options.DataDir = None) -> Document:
    """The datasets, and which are on this machine."""
    from deploypipe.data import DATASETS, data_folder

    folder = data_folder(data_dir)
    rows = [(name, source.summary, source.is_present(folder)) for name, source in DATASETS.items()]
    listing(("dataset", "what it is", "here"), [(name, what, "yes" if here else "no") for name, what, here in rows])
    note(f"Data folder: {folder}")
    return {"folder": str(folder), "datasets": [{"name": n, "summary": what, "here": here} for n, what, here in rows]}


def formats() -> Document:
    """The formats an artifact can have."""
    from deploypipe.formats import FORMATS

    listing(("format", "suffix", "carries"), [(f.name, f.suffix, f.carries) for f in FORMATS.values()])
    return {"formats": [{"name": f.name, "suffix": f.suffix, "carries": f.carries} for f in FORMATS.values()]}
