"""What the editors do with scripts: a preview that follows, a Tab key that indents and does not trap."""

from __future__ import annotations

from playwright.async_api import expect

from tests.web.conftest import Stage


async def test_the_preview_follows_what_is_typed(stage: Stage) -> None:
    template = await stage.house.template(name="Edited", custom_fields=[{"label": "Ticket", "type": "text"}])
    async with stage.person(stage.house.admin) as page:
        await page.goto(f"/admin/templates/{template.id}")
        await page.evaluate("window.notReloaded = true")
        await page.get_by_label("Label").fill("<b>Incident</b>")
        preview = page.locator("#preview")
        await expect(preview.get_by_label("<b>Incident</b>")).to_be_visible()
        await page.get_by_label("Type").select_option("checkbox")
        await expect(preview.get_by_role("checkbox")).to_be_visible()
        assert await page.evaluate("window.notReloaded")
        await page.get_by_role("button", name="Add a question").click()
        await expect(page.get_by_text("Question 2", exact=True)).to_be_visible()
        assert await page.get_by_label("Label").first.input_value() == "<b>Incident</b>"
        await page.get_by_role("button", name="Remove").last.click()
        await page.get_by_role("button", name="Save", exact=True).last.click()
        await expect(page.get_by_text("“Edited” is saved.")).to_be_visible()


async def test_tab_indents_in_a_script_and_lets_people_go_on(stage: Stage) -> None:
    async with stage.person(stage.house.admin) as page:
        await page.goto("/admin/tasks/new")
        script = page.get_by_label("Script", exact=True)
        await script.fill("def run():\n")
        await script.press("Tab")
        assert await script.input_value() == "def run():\n\t"
        await script.press("Escape")
        await script.press("Tab")
        assert not await script.evaluate("each => each === document.activeElement")
        assert await script.input_value() == "def run():\n\t"


async def test_a_run_is_followed_to_its_end(stage: Stage) -> None:
    task = await stage.house.task()
    async with stage.person(stage.house.admin) as page:
        await page.goto(f"/admin/tasks/{task.id}")
        await page.get_by_role("button", name="Run now").click()
        await expect(page.locator("#runs .chip")).to_be_visible()
        await page.evaluate("window.notReloaded = true")
        async with stage.house.db.connection() as connection:
            await connection.execute(
                "UPDATE task_runs SET status = 'succeeded', finished_at = now(), dispatch_at = NULL WHERE task_id = %s",
                [task.id],
            )
        await expect(page.locator("#runs .chip")).to_have_text("Succeeded")
        assert await page.evaluate("window.notReloaded")
