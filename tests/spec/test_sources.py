"""What `data.train` may say, and which network addresses are public."""

from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from service.spec import DataSpec, SourceKind
from service.spec.addresses import refuse_literal, refused
from service.spec.sources import HubSource, hub_source


@pytest.mark.parametrize(
    ("train", "kind"),
    [
        ("file-" + "0" * 21, SourceKind.FILE),
        ("/data/pairs.jsonl", SourceKind.PATH),
        ("s3://team/pairs.parquet", SourceKind.URL),
        ("gs://team/a b/pairs.parquet", SourceKind.URL),
        ("https://example.com/pairs.jsonl.gz?part=1", SourceKind.URL),
        ("hf:owner/name", SourceKind.HUB),
    ],
)
def test_a_source_is_told_by_its_form(train: str, kind: SourceKind) -> None:
    assert DataSpec(train=train).source is kind


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("pairs.jsonl", "ID of an uploaded file"),
        ("file-123", "ID of an uploaded file"),
        ("", "ID of an uploaded file"),
        ("ftp://example.com/x", "ID of an uploaded file"),
        ("file:///etc/passwd", "ID of an uploaded file"),
        ("local:///etc/passwd", "ID of an uploaded file"),
        ("http://example.com/x", "use https://"),
        ("https://ada:secret@example.com/x", "user name or password"),
        ("https://example.com", "a file there"),
        ("s3://bucket/", "a file there"),
        ("https://[::1/x", "not a URL"),
        ("https://example.com:99999/x", "not a URL"),
        ("https://exam\nple.com/x", "percent-encoded"),
        ("hf:name", "hf:owner/name"),
        ("hf:owner/name/../secret", "hf:owner/name"),
        ("hf:owner/name@", "hf:owner/name"),
        ("x" * 2001, "2000"),
    ],
)
def test_what_is_no_source_is_refused_with_what_would_be_one(train: str, said: str) -> None:
    with pytest.raises(ValidationError) as error:
        DataSpec(train=train)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("train", "parts"),
    [
        ("hf:owner/name", ("owner/name", None, None, None)),
        ("hf:owner/na.me@v1.0", ("owner/na.me", "v1.0", None, None)),
        ("hf:owner/name:train_prefs", ("owner/name", None, None, "train_prefs")),
        ("hf:owner/name@main/data/a b.parquet", ("owner/name", "main", "data/a b.parquet", None)),
    ],
)
def test_a_dataset_on_the_hub_has_a_revision_and_a_path_or_a_split(train: str, parts: tuple[str | None, ...]) -> None:
    assert hub_source(train) == HubSource(*parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
     "2002:7f00:1::", "::127.0.0.1", "fec0::1", "::ffff:0:10.0.0.1", "64:ff9b:1::a00:1", "4000::1"],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert refused(address, [])


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_taken(address: str) -> None:
    assert not refused(address, [])


def test_an_allowed_network_is_taken_and_no_other() -> None:
    allowed = [ip_network("10.20.0.0/16"), ip_network("fd00::/64")]
    assert not refused("10.20.3.4", allowed)
    assert not refused("::ffff:10.20.3.4", allowed)
    assert not refused("fd00::1", allowed)
    assert refused("10.21.0.1", allowed)
    assert not refuse_literal("example.com", [])  # names are for whoever resolves them


@pytest.mark.parametrize("host", ["0x7f.1", "2130706433", "0177.0.0.1", "127.1", "127.0.0.1.", "10.0.0.1", "::1"])
def test_every_spelling_of_an_address_is_known_for_one(host: str) -> None:
    assert refuse_literal(host, [])
