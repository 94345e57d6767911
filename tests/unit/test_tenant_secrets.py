"""Names that only who has the installation's secret can make, and that say nothing across tenants."""

from __future__ import annotations

from pathlib import Path

from services.tenant_secrets import TenantSecrets


def test_the_same_bytes_have_a_name_of_each_tenant_and_of_each_installation(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    names = {TenantSecrets(folder).keyed(tenant, b"x") for folder in (here, elsewhere) for tenant in ("acme", "zeta")}
    assert len(names) == 4
    assert TenantSecrets(here).keyed("acme", b"x") in names, "every process of an installation names it alike"
    assert TenantSecrets(here).keyed("acme", b"y") not in names
