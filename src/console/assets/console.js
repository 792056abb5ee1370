// What pages gain with JavaScript: countdowns by the server's clock, local times, copying, and secrets that are gone
// when the page is left. Nothing depends on it. It writes text, never markup.

const clock = {
  // The server's time at `read`, by a clock that nobody sets.
  server: Date.parse(document.body.dataset.now),
  read: performance.now(),
  now() {
    return this.server + performance.now() - this.read;
  },
  // performance.now() can stand still while a computer sleeps.
  async synchronize() {
    const asked = performance.now();
    try {
      const answer = await fetch("/console/time", { cache: "no-store" });
      const time = Number(await answer.text());
      if (answer.ok && time > 0) {
        this.read = (asked + performance.now()) / 2;
        this.server = time;
      }
    } catch {
      // Offline: go on with what is known.
    }
  },
};

// The same words as `in_words` in frame.rs.
function inWords(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

const announced = new Set();

// Tells a screen reader now and then, not each second.
function announce(left) {
  const minutes = [1, 5, 10, 30].find((limit) => left <= limit * 60_000);
  if (left <= 0 || minutes === undefined || announced.has(minutes)) return;
  [1, 5, 10, 30].filter((limit) => limit >= minutes).forEach((limit) => announced.add(limit));
  document.getElementById("announcer").textContent = `Your access ends in ${inWords(left)}.`;
}

function tick() {
  const now = clock.now();
  for (const element of document.querySelectorAll("[data-ends]")) {
    const left = Date.parse(element.dataset.ends) - now;
    element.textContent = left > 0 ? inWords(left) : "ended";
    if ("announce" in element.dataset) announce(left);
  }
  for (const element of document.querySelectorAll("[data-until]")) {
    const isOver = Date.parse(element.dataset.until) <= now;
    element.classList.toggle("ended", isOver);
    const over = element.dataset.over && document.getElementById(element.dataset.over);
    if (over) {
      element.hidden = isOver;
      over.hidden = !isOver;
    }
  }
  const signedIn = document.body.dataset.signedInUntil;
  if (signedIn) {
    const left = Date.parse(signedIn) - now;
    document.getElementById("session-warning").hidden = !(left < 120_000);
  }
}

function localTimes() {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const element of document.querySelectorAll("time")) {
    element.title = format.format(new Date(element.dateTime));
  }
  for (const element of document.querySelectorAll("option[data-end]")) {
    element.textContent += ` (${format.format(new Date(element.dataset.end))} your time)`;
  }
}

function copying() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    const words = button.textContent;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(document.getElementById(button.dataset.copy)?.textContent ?? "");
        button.textContent = "Copied";
      } catch {
        button.textContent = "Select it and copy it by hand";
      }
      setTimeout(() => (button.textContent = words), 4000);
    });
  }
}

// A page that is kept for the back button must not show a secret the next day.
addEventListener("pagehide", () => {
  for (const element of document.querySelectorAll("[data-secret] code")) element.textContent = "";
});
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

// Browsers without `commandfor`.
if (!("commandForElement" in HTMLButtonElement.prototype)) {
  for (const button of document.querySelectorAll("button[commandfor]")) {
    const dialog = document.getElementById(button.getAttribute("commandfor"));
    const isClose = button.getAttribute("command") === "close";
    button.addEventListener("click", () => (isClose ? dialog.close() : dialog.showModal()));
  }
}

// A second click on a button sends nothing.
addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
  // A download leaves the page as it is.
  setTimeout(() => delete form.dataset.sent, 3000);
});

localTimes();
copying();
tick();
setInterval(tick, 1000);
for (const event of ["focus", "visibilitychange"]) {
  addEventListener(event, async () => {
    await clock.synchronize();
    tick();
  });
}

// On to the identity provider. In place of this page, so that "back" does not lead to it.
const onward = document.querySelector("a[data-continue]");
if (onward) location.replace(onward.href);
