"""`portlens app`: the app in a browser."""

from __future__ import annotations

from typing import Annotated

import typer


def app_(
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port_number: Annotated[int | None, typer.Option("--port", help="The port.")] = None,
) -> None:
    """Serve the app; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT are its defaults."""
    from porting.ui.page import build, serve

    serve(build(), server_name=host, server_port=port_number)
