"""``storagering serve``."""

from __future__ import annotations

import argparse
from pathlib import Path

from storagering.cli.console import say
from storagering.cli.parsing import Verbs, add_verb

_TEXT = """\
Chunks, manifests and statistics of this cache are given to those who name their digests; nothing can
be changed. Without options the node answers on this machine alone, to all of its users; with a token
only to those who show it. Any other address needs a token and TLS. The token is one long word, in a
file that only you may read, in the setting peer_token_file or in STORAGERING_PEER_TOKEN. Others find
this node by the setting peers: STORAGERING_PEERS=https://node1:8760,https://node2:8760."""
_EXAMPLES = """\
storagering serve
storagering serve --host node1.site.org --token-file ~/.peers --tls-cert node1.pem --tls-key node1.key"""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(verbs, "serve", run, summary="give this cache to other nodes", examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8760, help="its port, 0 for any that is free (default: 8760)")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token that is asked for")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate of this node, for TLS")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    text = "fetch chunks that are asked for and not here from where this node gets them, once for all who ask"
    parser.add_argument("--forward", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    from storagering.cache.layout import open_cache
    from storagering.cache.peers.client import Peers
    from storagering.cache.peers.forward import ChunkForwarder
    from storagering.cache.peers.serving import ServeOptions, serve_cache
    from storagering.config import load_settings

    cache = open_cache(load_settings())
    forwarder = ChunkForwarder(cache, Peers.from_settings(cache.settings)) if args.forward else None
    options = ServeOptions(args.host, args.port, args.token_file, args.tls_cert, args.tls_key)

    def started(url: str) -> None:
        say(f"serving {cache.root} at {url}")

    try:
        serve_cache(cache, options, resolve=forwarder, started=started, tell=say)
    except KeyboardInterrupt:  # the way in which it ends
        say("stopped")
    finally:
        if forwarder is not None:
            forwarder.close()
    return 0
