import subprocess

import torch

from xkd.versions import git_revision, versions


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_checkout_is_named_by_its_commit_and_marked_where_it_differs(tmp_path):
    git(tmp_path, "init", "-q")
    package = tmp_path / "package"
    package.mkdir()
    (package / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "-am", "a tag is not a revision", "v1")
    assert git_revision(package) == git(tmp_path, "rev-parse", "HEAD")
    (package / "code.py").write_text("2")
    assert git_revision(package) == git(tmp_path, "rev-parse", "HEAD") + "-dirty"


def test_a_package_in_a_foreign_checkout_has_no_revision(tmp_path):
    """As in a virtual environment that lies in the repository of another project."""
    git(tmp_path, "init", "-q")
    (tmp_path / "theirs.txt").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "theirs")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "code.py").write_text("1")
    assert git_revision(tmp_path / "site-packages") is None


def test_libraries_that_numbers_depend_on_are_named():
    found = versions()
    assert torch.__version__.startswith(found["torch"])
    assert found["python"].startswith("3.")
