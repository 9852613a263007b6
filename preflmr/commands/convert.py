"""``preflmr convert``"""

from __future__ import annotations

import argparse
from typing import Any

from preflmr.commands.options import add_checkpoint


def add(subparsers: Any) -> None:
    """The options of the command."""
    command = subparsers.add_parser("convert", help="write a checkpoint of any known layout in the published one")
    command.set_defaults(command=run)
    add_checkpoint(command)
    command.add_argument("output", help="a folder")
    command.add_argument("--vision", choices=("transformers", "open_clip"), help="whose code runs the vision encoder")


def run(options: argparse.Namespace) -> None:
    """Writes a checkpoint in the published layout."""
    from preflmr.config import FLMRConfig
    from preflmr.model import PreFLMR

    config = None
    if options.vision is not None:
        config = FLMRConfig.from_pretrained(options.checkpoint)
        config.vision_config.implementation = options.vision
    model = PreFLMR.from_pretrained(options.checkpoint, config=config)
    model.save_pretrained(options.output)
    print(f"{options.output}: {sum(parameter.numel() for parameter in model.parameters()):,} parameters")
