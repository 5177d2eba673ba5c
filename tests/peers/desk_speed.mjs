// Opens a desk with many calls that wait, in two pages, and decides on one of them: how long until the page can be used, and until the
// other page shows the decision.
//
// node desk_speed.mjs LINK CHROMIUM COUNT
//
// Prints both times in milliseconds. Judges nothing: machines differ.
import { chromium } from "playwright-core";

const [link, executablePath, count] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
try {
  const page = await (await browser.newContext()).newPage();
  await page.goto(link);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator(".live.on").waitFor();
  const times = { usable: [], seen: [] };
  const other = await page.context().newPage();
  for (let turn = 0; turn < 5; turn += 1) {
    const began = performance.now();
    await page.goto(new URL("/", link).href);
    await page.locator(".live.on").waitFor();
    await page.getByRole("button", { name: "Approve" }).first().waitFor();
    times.usable.push(performance.now() - began);
    const shown = Number(await page.locator("#count").textContent());
    if (shown !== Number(count) - turn) throw new Error(`${shown} are shown as waiting, not ${count - turn}`);
    await other.goto(new URL("/", link).href);
    await other.locator(".live.on").waitFor();
    const row = page.locator("#holds > .hold:not(.over)").first();
    const id = await row.getAttribute("data-id");
    const seen = other.evaluate((id) => new Promise((done) => {
      const look = () => document.querySelector(`#hold-${id}.over`) ? done(Date.now()) : requestAnimationFrame(look);
      look();
    }), id);
    const decided = await page.evaluate((id) => {
      const at = Date.now();
      document.querySelector(`#hold-${id} button.yes`).click();
      return at;
    }, id);
    times.seen.push((await seen) - decided);
  }
  const median = (all) => Math.round(all.sort((a, b) => a - b)[Math.floor(all.length / 2)]);
  console.log(`usable after ${median(times.usable)} ms, a decision is on the other page after ${median(times.seen)} ms`);
} finally {
  await browser.close();
}
