"""Gradio's theme, with the contrast and the fonts that the page needs."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

_SCRIPTS = (
    "vendor/plotly-cartesian.min.js",
    "js/lens.js",
    *(f"js/{name}.js" for name in ("blocks", "matrices", "panel", "table", "page", "walk")),
)
ASSETS = Path(__file__).resolve().parents[2] / "assets"


def theme() -> gr.themes.Base:
    """The page's theme: teal accents, IBM Plex in the two weights that are whole.

    Gradio's SemiBold and Medium files lack most letters, so 600 and 500 are not used.
    """
    sans = gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700))
    mono = gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700))
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        font=[sans, "system-ui", "sans-serif"],
        font_mono=[mono, "ui-monospace", "monospace"],
        radius_size="sm",
        spacing_size="sm",
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_title_text_weight="400",
        block_label_text_weight="400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_large_text_weight="400",
        button_medium_text_weight="400",
        button_small_text_weight="400",
        checkbox_label_text_weight="400",
        color_accent="*primary_700",
        input_placeholder_color="*neutral_500",
        block_border_width="0px",
        block_shadow="none",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        panel_border_width="0px",
    )


def head() -> str:
    """Scripts and styles of the page, from this server only; addresses are relative, for any mount."""
    phone, plotly, page, *parts = (
        f"gradio_api/file={ASSETS / name}" for name in ("phone.css", *_SCRIPTS)
    )
    ahead = "".join(f'<link rel="modulepreload" href="{part}">' for part in parts)
    return (
        f'<link rel="stylesheet" href="{phone}">{ahead}'
        f'<script defer src="{plotly}"></script><script type="module" src="{page}"></script>'
    )
