# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc models list | fetch NAME | verify FILE``: the published weights."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import socket
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from alocc_ros.errors import CheckpointError, ModelError
from alocc_ros.records import (
    ModelRecord,
    find,
    load_records,
    published_record,
    sha256,
    trained_model,
    weights_file,
    weights_path,
)
from alocc_ros.resources import cache_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the three actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all published models")
    listing.add_argument("--json", action="store_true", help="the whole records, as JSON")
    fetching = actions.add_parser("fetch", help="download the weights of one model")
    fetching.add_argument("name", metavar="NAME", help="see `alocc models list`")
    fetching.add_argument(
        "--dir", type=Path, help="folder for the file (default: this user's cache, see list)"
    )
    verifying = actions.add_parser(
        "verify", help="read a checkpoint safely and check that it fits its network"
    )
    verifying.add_argument(
        "file", metavar="FILE", help=".pth or .safetensors, the folder of a run, or a name"
    )
    verifying.add_argument("--variant", help="the network it must fit (default: told by the file)")


def run(args: argparse.Namespace) -> int:
    """Runs the chosen action."""
    if args.action == "list":
        return _list(args.json)
    if args.action == "fetch":
        return _fetch(find(args.name), args.dir)
    return _verify(_checkpoint(args.file), args.variant)


def _list(as_json: bool) -> int:
    records = load_records().values()
    if as_json:
        print(json.dumps([_plain(r) for r in records], indent=2))
        return 0
    rows = [("MODEL", "INPUT", "CLASSES", "HISTORY", "FLOW", "PUBLISHED", "WEIGHTS")]
    for r in records:
        score = f"{r.scores[0].metric} {r.scores[0].value:.1f}" if r.scores else "-"
        height, width = r.input_size
        here = "unpublished"
        if r.file is not None:
            here = "fetched" if weights_path(r).is_file() else "not fetched"
            here = "comes along" if r.repository is None else here
        yes = "yes" if r.flow else "no"
        size, past = f"{width}x{height}", "recurrent" if r.recurrent else str(r.history)
        rows.append((r.name, size, r.classes.name, past, yes, score, here))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
    print(f"\nfetched weights are kept in {cache_folder() / 'models'}")
    return 0


def _plain(record: ModelRecord) -> dict[str, object]:
    entries = dataclasses.asdict(record)
    weights = None if record.file is None else weights_path(record)
    return {**entries, "weights": str(weights) if weights and weights.is_file() else None}


def _fetch(record: ModelRecord, folder: Path | None) -> int:
    target = weights_path(record, folder)
    if target.is_file():
        print(f"{target} is already there")
    elif record.repository is None:
        raise ModelError(f"{target} comes with the package and is not there: install it anew")
    else:
        _download(record, target)
        print(f"{target}\nsha256 {sha256(target)}")
        if record.revision is None:
            print(f"of the newest revision: the record of {record.name} does not name one yet")
    print(f"check it with: alocc models verify {target}")
    return 0


def _download(record: ModelRecord, target: Path) -> None:
    """The file at ``target``, whole and with the record's digest, or nothing."""
    from huggingface_hub import hf_hub_download

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    elsewhere = (
        f"Download {record.file} of {record.repository} on the Hugging Face hub where there is "
        "a network, and give it with --model FILE"
    )
    try:
        _connect_to_hub()
    except OSError as error:
        raise ModelError(
            f"offline: the Hugging Face hub cannot be reached ({_cause(error)}). {elsewhere}"
        ) from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch:
            file = Path(
                hf_hub_download(
                    record.repository, record.file, revision=record.revision, local_dir=scratch
                )
            )
            if record.sha256 and sha256(file) != record.sha256:
                raise ModelError(
                    f"{record.name}: the file that came has SHA-256 {sha256(file)}, its record "
                    f"says {record.sha256}; it was not kept"
                )
            os.replace(file, target)
    except ModelError:
        raise
    except Exception as error:  # whatever the hub's library and its HTTP client raise
        raise ModelError(
            f"{record.name} could not be fetched ({_cause(error)}). {elsewhere}"
        ) from error


def _connect_to_hub() -> None:
    """Fails at once where there is no network; the hub's library tries for half a minute."""
    from huggingface_hub import constants

    hub = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    if hub.scheme in urllib.request.getproxies():
        return
    port = hub.port or (443 if hub.scheme == "https" else 80)
    socket.create_connection((hub.hostname, port), timeout=10).close()


def _cause(error: BaseException) -> str:
    """The innermost reason, in a few words: the outer ones are long and say to try again."""
    while error.__cause__ or (error.__context__ and not error.__suppress_context__):
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:120]}" if words else type(error).__name__


def _verify(path: Path, variant: str | None) -> int:
    from alocc_ros.network.checkpoint import likely_variant, load_weights, read_weights
    from alocc_ros.network.model import Alocc
    from alocc_ros.network.variants import VARIANTS, find_variant

    if variant is not None:
        find_variant(variant)
    found = read_weights(path)
    weights = found.tensors
    digest = sha256(path)
    print(f"file     {path} ({path.stat().st_size / 1e6:.1f} MB)\nsha256   {digest}")

    record = published_record(path)
    if variant is not None:
        name, reason = variant, "asked for"
    elif record is not None:
        name, reason = record.variant, "by the file's name or SHA-256"
    elif (trained := trained_model(path)) is not None:
        name, reason = find(trained).variant, f"trained as {trained}"
    else:
        name, share = likely_variant(weights)
        reason = f"a guess: {share:.0%} of its weights fit"
    print(f"network  {name} ({reason})")

    print(f"tensors  {found.source()}")
    problems = []
    try:
        report = load_weights(Alocc(VARIANTS[name]), weights)
        print(f"weights  {report.summary(most=len(weights))}")  # who verifies wants all names
    except CheckpointError as error:
        problems.append(str(error))
    if record is None:
        print("record   none: neither name nor SHA-256 is that of a published model")
    elif record.sha256 is None:
        print(f"record   {record.name}; its SHA-256 is not known yet")
    elif record.sha256 == digest:
        print(f"record   {record.name}; SHA-256 agrees")
    else:
        problems.append(f"the record of {record.name} has SHA-256 {record.sha256}")
    for problem in problems:
        print(f"WRONG    {problem}")
    print("result   " + ("does not hold" if problems else "good"))
    return 1 if problems else 0


def _checkpoint(name: str) -> Path:
    """Of a file that is not there its reader says so."""
    is_path = Path(name).suffix or Path(name).name != name
    return Path(name) if is_path and not Path(name).is_dir() else weights_file(name)
