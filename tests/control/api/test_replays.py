"""Idempotency keys: what a retry gets."""

from turnout.control.storage.store import Store, StoreError, store_url


def test_a_retried_upgrade_gets_the_first_answer_though_another_program_has_the_store(served):
    async def claim():
        heir = await Store.open(store_url("sqlite", served.supervisor.directory))
        await heir.claim()
        await heir.close()

    served.do(claim())
    first, again = [served.call("POST", "/v1/upgrade", {}, Idempotency_Key="k1") for _ in range(2)]

    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert served.supervisor.told.count(("upgrade",)) == 1


def test_what_is_done_is_answered_though_the_answer_cannot_be_kept(served, monkeypatch):
    async def fail(*_args):
        raise StoreError("the store is away")

    monkeypatch.setattr(served.plane._running[-1]._replays, "_keep", fail)

    assert served.call("POST", "/v1/reload", {}, Idempotency_Key="k1").status == 200
