# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds the page with gradio, answers its visitors one after the other, and serves it."""

import html
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any


os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
# gradio asks its own page whether it is up; a proxy of the network could not know.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(
    filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "localhost", "127.0.0.1"])
)

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware

from collection import DECODING, find_name, find_names, read_photograph
from explorer import Explorer, Match, Point, Seen, mark_point, match
from limits import MAX_FILE, BodyLimit, take_uploads
from measurements import read_measurements
from modeling_esvit.backbone_probe import name_network
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import DecodingOptions


Image.MAX_IMAGE_PIXELS = None  # gradio opens an upload without decoding it, and `decode` has a lower limit of its own

TITLE = "What does this model see?"
HEIGHT = 340
MOST_NAMED = 1000  # names in a list at a time; of more, a visitor types a part
SESSIONS = 50  # visitors whose images are in memory; of more, the oldest begin anew
# What Markdown and HTML take for more than text, such as images of other hosts.
MARKUP = re.compile(r"[\\`*_\[\]<>&$!|~#]")
WORKER = ThreadPoolExecutor(max_workers=1)
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
NOTHING = "Choose or upload an image above."
CLICK_ONE = "**Click a point in the image** to find what resembles it in this same image{}."
CLICK = "**Click a point in image A or B** to find what resembles it in the other one{}."
ATTENDS = ", and to see where it attends"
THEME = gr.themes.Soft(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], primary_hue="blue", radius_size="sm"
)
CSS = """
html {scrollbar-gutter: stable}
footer {display: none !important}
.gradio-container {max-width: 1200px !important; width: 100% !important; margin: auto}
.grid-wrap {height: auto !important; max-height: none !important; overflow: visible !important}
.caption-label {white-space: normal !important; overflow-wrap: anywhere; max-width: 95% !important}
@media (max-width: 640px) {.grid-container {grid-template-columns: repeat(2, minmax(0, 1fr)) !important}}
"""


def describe(name: str, explorer: Explorer) -> str:
    """Says what the model is, what was measured of it, and what to do."""
    short = "/".join(name.rstrip("/").split("/")[-2:])
    size = f"{explorer.model.num_parameters() / 1e6:.1f} million weights"
    lines = [f"# {TITLE}", f"**{short}**: {name_network(explorer.model.config)}, {size}"]
    if measured := read_measurements(name):
        lines.append(f"Measured of it: {escape_markup('; '.join(measured))}.")
    return "\n\n".join([*lines, "Choose or upload one or two images, and see below what it finds in them."])


def escape_markup(text: str) -> str:
    """Returns Markdown that shows a text of a stranger as it is, and loads nothing that it names."""
    return MARKUP.sub(r"\\\g<0>", text)


def show_errors(function: Any) -> Any:
    """Wraps a handler so that an error that a user can put right becomes a message on the page.

    All handlers run in one thread: each of several would keep memory of the images that it has decoded.
    """

    def call(*arguments: Any) -> Any:
        try:
            return WORKER.submit(function, *arguments).result()
        except (EsViTError, OSError) as error:
            shown = html.escape(str(error), quote=False)  # gradio takes it for HTML
            raise gr.Error(shown, title="This did not work", duration=15, print_exception=False) from error

    return call


def read_point(event: gr.SelectData) -> Point:
    """Returns the place of a click, in pixels of the image as it was sent."""
    return int(event.index[0]), int(event.index[1])


class Page:
    """Holds the handlers of one model's page. The browser's session keeps the two `Seen` images, A and B."""

    def __init__(self, explorer: Explorer, decoding: DecodingOptions = DECODING) -> None:
        self.explorer, self.decoding = explorer, decoding

    def take_photograph(self, text: str | None) -> tuple[Image.Image, Seen, str]:
        """Reads the photograph of a name, or of a part of one, and completes the name."""
        name = find_name(self.explorer.names, str(text or ""))
        seen = self.explorer.see_photograph(name)
        return seen.original, seen, name

    def start(self, *names: str) -> tuple[Any, ...]:
        """Returns both images of the first visit."""
        taken = [self.take_photograph(name) for name in names]
        return *(image for image, _, _ in taken), *(seen for _, seen, _ in taken)

    def list_names(self, event: gr.KeyUpData) -> Any:
        """Returns the list of names that have in them what a visitor types."""
        return gr.update(choices=find_names(self.explorer.names, event.input_value, MOST_NAMED))

    def take_upload(self, path: str) -> tuple[Image.Image, Seen, None]:
        """Reads the upload as RGB, which every browser shows, and undoes the choice of a photograph."""
        image = read_photograph(path, options=self.decoding)
        return image, self.explorer.see(image), None

    def refresh(self, a: Seen | None, b: Seen | None) -> tuple[Any, ...]:
        """Returns everything below the two images; what answers a click is empty until there is one."""
        pair = [seen for seen in (a, b) if seen is not None]
        colours = iter(self.explorer.colour_regions(pair) if pair else [])
        coloured = [next(colours) if seen is not None else None for seen in (a, b)]
        neighbours = [self.explorer.find_neighbours(seen) if seen is not None else None for seen in (a, b)]
        hint = (NOTHING, CLICK_ONE, CLICK)[len(pair)].format(ATTENDS if self.explorer.num_blocks else "")
        return *coloured, *neighbours, hint, None, None, None, None, None

    def answer(self, index: int, a: Seen | None, b: Seen | None, block: int | None, point: Point) -> tuple[Any, ...]:
        """Answers a click into image A (0) or B (1): a sentence, the match, where it attends, and the click itself."""
        source, other = (a, b)[index], (a, b)[1 - index]
        if source is None:
            return NOTHING, None, None, None, None, None
        at = source.find_point(point)
        found = match(source, other or source, at)
        hint = self.describe_match(found, f"image {'BA'[index]}" if other else "the same image")
        return hint, mark_point(source.image, at), found.picture, *self.attend(block, (source, at)), (source, at)

    def describe_match(self, found: Match, where: str) -> str:
        """Says where the most similar region is, or that it is no more similar than regions of any photograph."""
        place, chance = f"at ({found.point[0]}, {found.point[1]})", self.explorer.chance
        if chance is not None and found.similarity <= chance:
            said = (
                f"Nothing in {where} resembles this point: the highest cosine is {found.similarity:.3f}, {place}, and "
                f"regions of any two photographs reach {chance:.3f} by chance."
            )
        else:
            said = f"In {where}, the most similar region is {place}, cosine {found.similarity:.3f}."
        return f"{said} Click again anywhere."

    def click_a(self, a: Seen | None, b: Seen | None, block: int | None, event: gr.SelectData) -> tuple[Any, ...]:
        return show_errors(self.answer)(0, a, b, block, read_point(event))

    def click_b(self, a: Seen | None, b: Seen | None, block: int | None, event: gr.SelectData) -> tuple[Any, ...]:
        return show_errors(self.answer)(1, a, b, block, read_point(event))

    def attend(self, block: int | None, clicked: tuple[Seen, Point] | None) -> tuple[Any, Any]:
        """Returns the image with the point and its window, and a picture of the window for each head."""
        if clicked is None or not block:
            return None, None
        return self.explorer.draw_attention(clicked[0], int(block), clicked[1])


def make_picture(label: str, name: str, **options: Any) -> gr.Image:
    return gr.Image(label=label, elem_id=name, interactive=False, height=HEIGHT, buttons=["download"], **options)


def make_gallery(label: str, name: str) -> gr.Gallery:
    return gr.Gallery(label=label, elem_id=name, columns=4, object_fit="contain", buttons=["download"])


def build(name: str, explorer: Explorer, kept_minutes: float, decoding: DecodingOptions = DECODING) -> gr.Blocks:
    page, seconds = Page(explorer, decoding), max(round(60 * kept_minutes), 1)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(seconds, seconds)) as blocks:
        gr.Markdown(describe(name, explorer))
        states = [gr.State(None, time_to_live=seconds) for _ in "AB"]
        with gr.Row():
            uploads, choices = zip(*map(build_choice, "AB", explorer.choose_pair(), [explorer] * 2), strict=True)
        hint = gr.Markdown(elem_id="hint")
        with gr.Tab("Match a point"):
            gr.Markdown(explain_brightness(explorer))
            with gr.Row():
                asked = make_picture("The point", "asked")
                found = make_picture("Bright: similar to it", "found")
        with gr.Tab("Colours of regions"):
            gr.Markdown("Regions that the model finds similar have similar colours, in both images.")
            with gr.Row():
                colours = [make_picture(f"Colours of {letter}", f"colours-{letter}") for letter in "AB"]
        with gr.Tab("Nearest photographs"):
            gr.Markdown(f"Among {explorer.searched}, the most similar to each image, with their cosines.")
            nearest = [make_gallery(f"Nearest to {letter}", f"nearest-{letter}") for letter in "AB"]
        with gr.Tab("Attention", visible=explorer.num_blocks > 0):
            attention, block = build_attention_tab(explorer)
        answer = [hint, asked, found, *attention, gr.State(None, time_to_live=seconds)]
        connect(page, blocks, states, uploads, choices, [*colours, *nearest], answer, block)
    return blocks


def explain_brightness(explorer: Explorer) -> str:
    scale = "The best match is as bright as its cosine is high; a cosine of 1 is the brightest."
    if explorer.chance is None:
        return scale
    return f"{scale} Up to {explorer.chance:.3f} is no match: regions of any two photographs here reach it by chance."


def build_choice(letter: str, first: str, explorer: Explorer) -> tuple[gr.Image, gr.Dropdown]:
    """Builds what image A or B is chosen with. Clicks into the image are answered below."""
    more = f": type a part of one of {len(explorer.names):,} names" if len(explorer.names) > MOST_NAMED else ""
    label = f"or a photograph as image {letter}{more}"
    with gr.Column():
        upload = gr.Image(
            label=f"Image {letter}: click a point", elem_id=f"upload-{letter}", type="filepath", image_mode=None,
            sources=["upload", "clipboard"], format="png", height=HEIGHT, alt_text=f"image {letter}",
        )  # fmt: skip
        take_uploads(upload)
        choice = gr.Dropdown(
            explorer.names[:MOST_NAMED], value=first, label=label, elem_id=f"choice-{letter}", allow_custom_value=True
        )
    return upload, choice


def build_attention_tab(explorer: Explorer) -> tuple[list[Any], gr.Dropdown]:
    count = explorer.num_blocks
    gr.Markdown(
        "Where each head of the chosen block attends from the point that you clicked. A frame shows how far it can "
        "look: in a model with windows, as far as its window. The heads are pictures of what is in the frame."
    )
    with gr.Row():
        with gr.Column(scale=1):
            image = make_picture("The point, and how far it can look", "attention")
            numbers = [(f"block {n} of {count}", n) for n in range(1, count + 1)]
            block = gr.Dropdown(numbers, value=count or None, label="Block", elem_id="block")
        with gr.Column(scale=2):
            heads = make_gallery("What the point attends to, for each head", "heads")
    return [image, heads], block


def connect(
    page: Page, blocks: gr.Blocks, states: Any, uploads: Any, choices: Any, shown: list[Any], answer: list[Any],
    block: gr.Dropdown,
) -> None:  # fmt: skip
    """Connects the events of the page to its handlers, all of which share one place in the queue."""
    refresh: dict[str, Any] = {"fn": show_errors(page.refresh), "inputs": states, "outputs": [*shown, *answer]}
    refresh |= ONE_AT_A_TIME
    blocks.load(show_errors(page.start), choices, [*uploads, *states], **ONE_AT_A_TIME).success(**refresh)
    for upload, choice, state, click in zip(uploads, choices, states, (page.click_a, page.click_b), strict=True):
        taken = [upload, state, choice]
        choose: dict[str, Any] = {"fn": show_errors(page.take_photograph), "inputs": choice, "outputs": taken}
        choice.input(**choose, **ONE_AT_A_TIME).success(**refresh)
        if len(page.explorer.names) > MOST_NAMED:
            choice.key_up(page.list_names, None, choice, show_progress="hidden")
        upload.upload(show_errors(page.take_upload), upload, taken, **ONE_AT_A_TIME).success(**refresh)
        # Called while the image is still there, so the image cannot be an input.
        upload.clear(lambda: (None, None, None), None, taken, **ONE_AT_A_TIME).success(**refresh)
        upload.select(click, [*states, block], answer, **ONE_AT_A_TIME)
    block.input(show_errors(page.attend), [block, answer[-1]], answer[3:5], **ONE_AT_A_TIME)


def launch(page: gr.Blocks, port: int | None) -> None:
    """Serves the page until the program is stopped.

    Raises:
        OSError: the port is taken, or nothing on this machine can reach the page.
    """
    limits: dict[str, Any] = {"max_file_size": MAX_FILE, "state_session_capacity": SESSIONS}
    look: dict[str, Any] = {"theme": THEME, "css": CSS, "footer_links": [], "ssr_mode": False, "show_error": True}
    try:
        application = {"middleware": [Middleware(BodyLimit)]}
        quiet: dict[str, Any] = {"quiet": True, "prevent_thread_lock": True}
        _, address, _ = page.launch(server_port=port, app_kwargs=application, **limits, **look, **quiet)
    except OSError:
        raise
    except Exception as error:  # gradio has no other class for it
        if "localhost" not in str(error):
            raise
        raise ConnectionError(str(error)) from error
    print(f"the page is at {address}", flush=True)
    page.block_thread()
