// Uses a desk as people do: in Chromium, with scripts and without, with keys, on a phone, and with axe looking on.
//
// node browser.mjs LINK LINK_FOR_THE_ONE_WITHOUT_SCRIPTS CHROMIUM DIRECTORY
//
// The desk has four calls that wait: send_refund, run_command, create_issue and get_user. Pictures of the pages go to the
// directory. Says each step; ends with an error at the first one that does not go as it should.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import path from "node:path";
import { chromium } from "playwright-core";

const [link, otherLink, executablePath, directory] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const say = (step) => console.log(step);
const must = (holds, what) => { if (!holds) throw new Error(what); };

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
const faults = [];

async function open(options, to) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().includes("409")) faults.push(message.text());
  });
  page.on("request", (request) => must(request.url().startsWith(new URL(to).origin), `asks ${request.url()}`));
  await page.goto(to);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: /waiting$/ }).waitFor();
  return page;
}

// axe is evaluated by the debugger, which a page's policy does not bind.
async function accessible(page, name) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"] }));
  const told = violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`);
  must(told.length === 0, `${name}: ${told.join("\n")}`);
}

const shot = (page, name) => page.screenshot({ path: path.join(directory, `${name}.png`), fullPage: true });
const hold = (page, tool) => page.locator(".hold", { has: page.getByRole("link", { name: tool, exact: true }) });
const over = (page, tool, state) => page.locator(`.hold.over[data-state=${state}]`, { hasText: tool }).waitFor();

try {
  const page = await open({ viewport: { width: 1200, height: 900 } }, link);
  const other = await page.context().newPage();
  await other.goto(page.url());
  await page.locator(".live.on").waitFor();
  await other.locator(".live.on").waitFor();
  say("signed in");

  must((await page.locator("script:not([src])").count()) === 0, "a script came in");
  must((await page.getByText("<script>alert(1)</script>").count()) >= 1, "what a call says is shown as text");
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    await accessible(page, `the list, ${scheme}`);
    await shot(page, `list-${scheme}`);
  }

  // In place, with a comment; another page that is open sees it.
  await hold(page, "send_refund").getByRole("textbox").fill("checked");
  await hold(page, "send_refund").getByRole("button", { name: "Approve" }).click();
  await page.locator(".hold.over", { hasText: "send_refund" }).waitFor();
  await other.locator(".hold.over", { hasText: "send_refund" }).waitFor();
  say("approved, and seen on another page");

  // What is odd is read in the drawer, and rejected there with a reason.
  must((await hold(page, "run_command").getByRole("button", { name: "Approve" }).count()) === 0, "odd, yet decided in passing");
  await hold(page, "run_command").getByRole("link", { name: "Read all of it to decide" }).click();
  const drawer = page.getByRole("dialog", { name: "One hold" });
  await drawer.getByText("Careful").first().waitFor();
  must((await drawer.getByText("⟨400 spaces⟩").count()) >= 1, "the white space is counted");
  await accessible(page, "the drawer");
  await shot(page, "drawer");
  await drawer.getByRole("button", { name: "Reject" }).click();
  await drawer.getByText("Say why").waitFor();
  await drawer.getByRole("textbox").fill("not like this");
  await drawer.getByRole("button", { name: "Reject" }).click();
  await over(other, "run_command", "rejected");
  say("rejected, with a reason");

  // By keys alone. A secret is covered until it is asked for.
  await page.waitForFunction(() => document.querySelectorAll("#holds > .hold").length === 2);
  must(!(await hold(page, "create_issue").getByText("hunter2").isVisible()), "the secret is covered");
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("k");
  await page.keyboard.press("a");
  await page.keyboard.press("j");
  await page.locator(".hold.on", { hasText: "get_user" }).waitFor();
  must((await page.evaluate(() => document.activeElement.matches(".hold.on"))), "Enter would still approve the row above");
  await page.keyboard.press("k");
  await page.locator(".hold.on", { hasText: "create_issue" }).waitFor();
  await page.keyboard.press("Enter");
  await drawer.getByRole("heading", { name: "create_issue" }).waitFor();
  await page.keyboard.press("a");
  await page.keyboard.press("Enter");
  await page.locator(".hold.over", { hasText: "create_issue" }).waitFor();
  say("approved by keys");

  for (const name of ["history", "open", "policy", "gates"]) {
    await page.goto(new URL(`/${name}`, link).href);
    await accessible(page, name);
    await shot(page, name);
  }

  // A phone, without scripts: links and forms are enough.
  const plain = await open({ viewport: { width: 360, height: 740 }, javaScriptEnabled: false, isMobile: true }, otherLink);
  await shot(plain, "phone");
  await hold(plain, "get_user").getByRole("link", { name: "get_user" }).click();
  await plain.getByRole("heading", { name: "get_user" }).waitFor();
  await shot(plain, "phone-hold");
  await plain.getByRole("button", { name: "Approve" }).click();
  await plain.getByText("is now").waitFor();
  say("approved without scripts");

  const narrow = await page.context().newPage();
  await narrow.setViewportSize({ width: 360, height: 740 });
  for (const name of ["history", "open", "policy", "gates"]) {
    await narrow.goto(new URL(`/${name}`, link).href);
    const wide = await narrow.evaluate(() => document.documentElement.scrollWidth);
    must(wide <= 360, `${name} is ${wide} wide on a phone`);
  }
  must(faults.length === 0, faults.join("\n"));
  say("clean for axe");
} catch (error) {
  // What was on the screen says more than the step that waited.
  for (const page of browser.contexts().flatMap((context) => context.pages())) {
    console.error(page.url(), await page.locator("body").ariaSnapshot().catch(String));
  }
  console.error(faults);
  throw error;
} finally {
  await browser.close();
}
