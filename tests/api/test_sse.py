import httpx


async def test_the_dashboard_is_served_where_no_route_is(client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]
    page = await client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    script = await client.get("/app.js")
    assert "javascript" in script.headers["content-type"]
    assert (await client.get("/docs")).status_code == 200
