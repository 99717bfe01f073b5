"""The stage `browse`: serve the page of a run until it is stopped, or write it as files.

    RUN/notes/          what people write while they look
    RUN/media-cache/    clips and stills, made when they are first looked at
    RUN/browse/         with `--export RUN/browse`, the page as files, which the report then leads to

Nothing else of the run is written.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path

from browse.config import BrowseConfig
from browse.media import Media
from browse.notes import Notes
from browse.sources import RunSource
from collect.errors import UserError
from collect.printable import printable

log = logging.getLogger(__name__)


def browse(config: BrowseConfig) -> Path | None:
    """Serve the page until the process is stopped; or write it, and return the path of its first file.

    Raises:
        UserError: there is no such run or SAE, its stages do not belong together, the address cannot be listened on, or
            the export cannot be written.
    """
    if not config.run.is_dir():
        raise UserError(f"There is no run {printable(config.run, 4096)}: give the folder of one with --run.")
    source = RunSource(config.run, config.sae, config.data)
    if config.sae is not None and not source.library.run.sae_names:
        raise UserError(f"{printable(config.run, 4096)} has no SAE {printable(config.sae)!r}: name one of its `sae/`.")
    source.library.run.check()
    if config.export is not None:
        from browse.export import export

        notes = Notes(config.run / "notes")
        most_bytes = int(config.cache_gb * 1e9) if config.media else 0
        return export(source.library, config.export, notes=notes, most_media_bytes=most_bytes)
    serve(config, source)
    return None


def serve(config: BrowseConfig, source: RunSource) -> None:
    """Serve the page until the process is stopped."""
    from browse.server.app import Served, application
    from browse.server.guard import Access
    from browse.server.serving import listen, server_of

    media = Media(lambda: source.library.run, config.run / "media-cache", most_bytes=int(config.cache_gb * 1e9))
    served = Served(name=config.run.resolve().name, source=source, notes=Notes(config.run / "notes"), media=media)
    with contextlib.closing(listen(config.host, config.port)) as listener:
        access = Access.of(config.host, listener.getsockname()[1], is_local=config.is_local)
        if not config.is_local:
            log.warning(
                "The page can be reached from other machines: whoever has its whole address can read this run and "
                "write notes. The connection is not encrypted."
            )
        log.info("Open %s (stop with Ctrl-C)", access.url)
        stopped = threading.Event()
        preparing = threading.Thread(target=source.prepare, args=(stopped,), daemon=True)
        preparing.start()
        try:
            with contextlib.suppress(KeyboardInterrupt):
                server_of(application(served, access)).run(sockets=[listener])
        finally:
            stopped.set()
            preparing.join()
