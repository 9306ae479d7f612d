# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Serves a page to explore a model: matches between two images, colours of regions, attention, nearest photographs.

    python examples/app/app.py MODEL

MODEL is a model folder or a name on the Hub. Without it, the environment variable MODEL names one, as on a Space (see
README.md beside this file). The page is at http://127.0.0.1:7860 unless `--port` names another port. It sends nothing
anywhere: it has no analytics, and no fonts or scripts of other hosts.
"""

import argparse
import os
import sys
from typing import Any


os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

from PIL import Image


# `explorer` lies beside this file, in a checkout as on a Space.
try:
    import gradio as gr

    from explorer import (
        LONGER_SIDE,
        Explorer,
        Point,
        Seen,
        mark_point,
        match,
        read_upload,
    )
    from modeling_esvit.errors import EsViTError
    from modeling_esvit.programs.parser import ProgramParser
except ModuleNotFoundError as error:
    sys.exit(f"error: this needs the package {error.name}: pip install -e '.[app]'")


TITLE = "What does this model see?"
START = ("motorcycle, left", "motorcycle, right")
HEIGHT = 340
THEME = gr.themes.Soft(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], primary_hue="blue", radius_size="sm"
)
CSS = """
footer {display: none !important}
.gradio-container {max-width: 1200px !important; margin: auto}
.grid-wrap {height: auto !important; max-height: none !important; overflow: visible !important}
"""


def describe(name: str, explorer: Explorer) -> str:
    config = explorer.model.config
    kind = getattr(config, "architecture", config.model_type)
    short = "/".join(name.rstrip("/").split("/")[-2:])
    size = f"{explorer.model.num_parameters() / 1e6:.1f} million weights"
    task = "Choose or upload one or two images, and see below what it finds in them."
    return f"# {TITLE}\n**{short}** ({kind}, {size}). {task}"


def show_errors(function: Any) -> Any:
    """Wraps a handler so that an error that a user can put right becomes a message on the page."""

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (EsViTError, OSError) as error:
            raise gr.Error(str(error), title="This did not work", duration=15) from error

    return call


def read_point(event: gr.SelectData) -> Point:
    """Returns the place of a click, in pixels of the image as it was sent."""
    return int(event.index[0]), int(event.index[1])


class Page:
    """Holds the handlers of one model's page. The browser's session keeps the two `Seen` images, A and B."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer

    def take_photograph(self, name: str) -> tuple[Image.Image, Seen]:
        image = self.explorer.photographs[name]
        return image, self.explorer.see(image)

    def start(self, *names: str) -> tuple[Any, ...]:
        """Returns both images of the first visit."""
        taken = [self.take_photograph(name) for name in names]
        return *(image for image, _ in taken), *(seen for _, seen in taken)

    def take_upload(self, path: str) -> tuple[Image.Image, Seen, None]:
        """Reads the upload as RGB, which every browser shows, and undoes the choice of a photograph."""
        image = read_upload(path)
        return image, self.explorer.see(image), None

    def refresh(self, a: Seen | None, b: Seen | None, block: int | None) -> tuple[Any, ...]:
        """Returns everything below the two images."""
        pair = [seen for seen in (a, b) if seen is not None]
        colours = iter(self.explorer.colour_regions(pair) if pair else [])
        coloured = [next(colours) if seen is not None else None for seen in (a, b)]
        neighbours = [self.explorer.find_neighbours(seen.original) if seen is not None else None for seen in (a, b)]
        plain = [seen.image if seen is not None else None for seen in (a, b)]
        return *plain, self.hint(a, b), *coloured, *neighbours, *self.attend(a, block, None)

    def hint(self, a: Seen | None, b: Seen | None) -> str:
        if a is None and b is None:
            return "Choose or upload an image above."
        if a is None or b is None:
            return "**Click a point** to find what resembles it in this image, or in a second image if there is one."
        return "**Click a point in either image** to find it in the other."

    def find(self, index: int, seen: tuple[Seen | None, Seen | None], point: Point) -> tuple[Any, Any, str]:
        """Answers a click into image A (0) or B (1) with both pictures, and a sentence about the match."""
        source, other = seen[index], seen[1 - index]
        if source is None:
            return None, None, self.hint(*seen)
        found = match(source, other or source, point)
        pictures: list[Any] = [None, None]
        pictures[index], pictures[1 - index] = mark_point(source.image, point), found.picture
        place = f"({found.point[0]}, {found.point[1]})"
        return (
            *pictures,
            f"The most similar region is at {place}, cosine {found.similarity:.3f}. Click again in either image.",
        )

    def click_a(self, a: Seen | None, b: Seen | None, event: gr.SelectData) -> tuple[Any, Any, str]:
        return show_errors(self.find)(0, (a, b), read_point(event))

    def click_b(self, a: Seen | None, b: Seen | None, event: gr.SelectData) -> tuple[Any, Any, str]:
        return show_errors(self.find)(1, (a, b), read_point(event))

    def attend(self, seen: Seen | None, block: int | None, point: Point | None) -> tuple[Any, Any]:
        """Returns the image with the point, by default the middle, and a picture for each head."""
        if seen is None or not block:
            return None if seen is None else seen.image, None
        point = point or (seen.image.width // 2, seen.image.height // 2)
        return mark_point(seen.image, point), self.explorer.draw_attention(seen, int(block), point)

    def click_attention(self, seen: Seen | None, block: int | None, event: gr.SelectData) -> tuple[Any, Any]:
        return show_errors(self.attend)(seen, block, read_point(event))


def make_picture(label: str, name: str, **options: Any) -> gr.Image:
    return gr.Image(label=label, elem_id=name, interactive=False, height=HEIGHT, buttons=["download"], **options)


def make_gallery(label: str, name: str) -> gr.Gallery:
    return gr.Gallery(label=label, elem_id=name, columns=4, object_fit="contain", buttons=["download"])


def build(name: str, explorer: Explorer) -> gr.Blocks:
    page, names = Page(explorer), list(explorer.photographs)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(describe(name, explorer))
        states, uploads, choices = [], [], []
        with gr.Row():
            for letter, start in zip("AB", START, strict=True):
                with gr.Column():
                    states.append(gr.State(None))
                    uploads.append(
                        gr.Image(
                            label=f"Image {letter}", elem_id=f"upload-{letter}", type="filepath", image_mode=None,
                            sources=["upload", "clipboard"], format="png", height=HEIGHT - 60,
                        )
                    )  # fmt: skip
                    label = f"or a photograph as image {letter}"
                    choices.append(gr.Dropdown(names, value=start, label=label, elem_id=f"choice-{letter}"))
        with gr.Tab("Match a point"):
            hint = gr.Markdown(elem_id="hint")
            with gr.Row():
                matches = [make_picture(f"{letter}: click a point", f"match-{letter}") for letter in "AB"]
        with gr.Tab("Colours of regions"):
            gr.Markdown("Regions that the model finds similar have similar colours, in both images.")
            with gr.Row():
                colours = [make_picture(f"Colours of {letter}", f"colours-{letter}") for letter in "AB"]
        with gr.Tab("Nearest photographs"):
            gr.Markdown("The bundled photographs, and parts of them, that are most similar to each image (cosine).")
            nearest = [make_gallery(f"Nearest to {letter}", f"nearest-{letter}") for letter in "AB"]
        with gr.Tab("Attention"):
            attention, block = build_attention_tab(explorer)
        outputs = [*matches, hint, *colours, *nearest, *attention]
        connect(page, blocks, states, uploads, choices, matches, hint, attention, block, outputs)
    return blocks


def build_attention_tab(explorer: Explorer) -> tuple[list[Any], gr.Dropdown]:
    count = explorer.num_blocks
    gr.Markdown(
        "**Click a point in image A** to see where each head of the chosen block attends from there. In a model with "
        "windows, heads stay in the window of the point."
        if count
        else "This model does not give its attention."
    )
    with gr.Row(visible=bool(count)):
        with gr.Column(scale=1):
            image = make_picture("A: click a point", "attention-A")
            numbers = [(f"block {n} of {count}", n) for n in range(1, count + 1)]
            block = gr.Dropdown(numbers, value=count or None, label="Block", elem_id="block")
        with gr.Column(scale=2):
            heads = make_gallery("Where the point attends, for each head", "heads")
    return [image, heads], block


def connect(
    page: Page, blocks: gr.Blocks, states: Any, uploads: Any, choices: Any, matches: Any, hint: Any, attention: Any,
    block: gr.Dropdown, outputs: list[Any],
) -> None:  # fmt: skip
    """Connects the events of the page to its handlers."""
    refresh: dict[str, Any] = {"fn": show_errors(page.refresh), "inputs": [*states, block], "outputs": outputs}
    blocks.load(show_errors(page.start), choices, [*uploads, *states]).success(**refresh)
    for upload, choice, state in zip(uploads, choices, states, strict=True):
        choose: dict[str, Any] = {"fn": show_errors(page.take_photograph), "inputs": choice, "outputs": [upload, state]}
        choice.input(**choose).success(**refresh)
        upload.upload(show_errors(page.take_upload), upload, [upload, state, choice]).success(**refresh)
        # Called while the image is still there, so the image cannot be an input.
        upload.clear(lambda: (None, None, None), None, [upload, state, choice]).success(**refresh)
    for image, click in zip(matches, (page.click_a, page.click_b), strict=True):
        image.select(click, states, [*matches, hint])
    attention[0].select(page.click_attention, [states[0], block], attention)
    block.input(lambda seen, number: show_errors(page.attend)(seen, number, None), [states[0], block], attention)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = ProgramParser(__doc__)
    parser.add_argument(
        "model", nargs="?", default=os.environ.get("MODEL"), help="folder or name on the Hub (or $MODEL)"
    )
    parser.add_argument(
        "--image_size", type=int, default=LONGER_SIDE, help="pixels of an image's longer side (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, help="port of the page (default: 7860, or the next one that is free)")
    options = parser.parse_args(arguments)
    if not options.model:
        parser.error("name a model, or set the environment variable MODEL")
    if options.image_size < 1:
        parser.error(f"--image_size must be at least 1, got {options.image_size}")
    if options.port is not None and not 1 <= options.port <= 65535:
        parser.error(f"--port must be between 1 and 65535, got {options.port}")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    try:
        explorer = Explorer(options.model, options.image_size)
        explorer.see(Image.new("RGB", (64, 64)))
        explorer.collection_views  # noqa: B018  (computed before a visitor waits for it)
    except (EsViTError, OSError) as error:
        sys.exit(f"error: {error}")
    page = build(options.model, explorer)
    try:
        page.launch(server_port=options.port, theme=THEME, css=CSS, show_error=True, footer_links=[], ssr_mode=False)
    except OSError as error:  # the port is taken
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
