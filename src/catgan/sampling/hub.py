"""Folders to the Hugging Face Hub, as one commit. Nothing that is there is deleted; tokens are in no message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catgan.errors import UserError
from catgan.system.packages import need


@dataclass(frozen=True)
class Uploaded:
    """What was made on the Hub."""

    url: str  # of the repository
    commit: str
    new: bool  # whether the repository was made for it


def client() -> Any:
    """The package huggingface_hub. Raises UserError if it is not installed."""
    for part in ("constants", "errors", "utils"):
        need(f"huggingface_hub.{part}", "the Hugging Face Hub", "hub")
    return need("huggingface_hub", "the Hugging Face Hub", "hub")


def check_name(name: str) -> None:
    """Raise UserError unless a repository can have the name OWNER/NAME."""
    hub = client()
    if not re.fullmatch(r"[^/]+/[^/]+", name):
        raise UserError(f"name is {name}: must be OWNER/NAME, the owner being a user or an organisation of the Hub")
    try:
        hub.utils.validate_repo_id(name)
    except ValueError:
        raise UserError(
            f"name is {name}: must be OWNER/NAME of letters, digits, -, _ and . alone, at most 96 characters, without -- "
            "or .. and not ending in .git, - or ."
        ) from None


def address(name: str, revision: str | None = None, kind: str = "resolve") -> str:
    """Where the Hub has the files of a repository. kind: resolve for the files, blob for the pages about them."""
    return f"{client().constants.ENDPOINT}/{name}/{kind}/{revision or 'main'}"


def upload(folder: Path, name: str, private: bool, message: str, revision: str | None = None) -> Uploaded:
    """Add the files of a folder to the repository of that name, which is made if it is not there, in one commit.

    private: of a new repository. revision: a branch, made if it is not there. Raises UserError for a bad name, without a
    token, if the Hub cannot be reached or refuses, and for a repository that ought to be private but is public.
    """
    check_name(name)
    hub, token = client(), client().get_token()
    if not token:
        raise UserError(
            "no token for the Hugging Face Hub: call hf auth login, or set HF_TOKEN, with one that may write"
        )
    api = hub.HfApi(token=token)
    with explained(name, token):
        new = is_new(api, name, private)
        url = api.create_repo(name, private=private or None, exist_ok=True)
        if revision:
            api.create_branch(name, branch=revision, exist_ok=True)
        made = api.upload_folder(repo_id=name, folder_path=folder, commit_message=message, revision=revision)
    return Uploaded(str(url), made.oid, new)


def is_new(api: Any, name: str, private: bool) -> bool:
    """Whether there is no repository of that name. Raises UserError if there is a public one that ought to be private."""
    try:
        there = api.model_info(name, timeout=10)
    except client().errors.RepositoryNotFoundError as error:
        if error.response.status_code != 404:  # as for a bad token
            raise
        return True
    if private and not there.private:
        raise UserError(f"{name} is on the Hub already, and public: make it private there, or choose another name")
    return False


@contextmanager
def explained(name: str, token: str) -> Iterator[None]:
    """Say in one line, without the token, what the Hub or the network answered."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of the network, the Hub or its storage, by many names
        reason = " ".join(str(error).split()).replace(token, "***")[:300].rstrip(".:") or type(error).__name__
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise UserError(
                f"the Hugging Face Hub refused {name} ({status}): call hf auth login, or set HF_TOKEN, with a token that "
                f"may write to {name.partition('/')[0]}"
            ) from None
        raise UserError(f"could not push to {name}: {reason}") from None
