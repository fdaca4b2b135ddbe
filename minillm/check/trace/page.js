"use strict";
(function () {
  const steps = JSON.parse(document.getElementById("trace").textContent).steps;
  const at = id => document.getElementById(id);
  const all = selector => Array.from(document.querySelectorAll(selector));
  const revealed = all("[data-step]"), edges = all("[data-lit]"), cards = all("[data-card]"), items = all("[data-item]");
  const graph = document.querySelector(".graph"), list = at("steps"), now = at("now");
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  let step = 0, timer = null;

  function paragraph(text, kind) {
    const p = document.createElement("p");
    p.textContent = text;
    if (kind) p.className = kind;
    now.appendChild(p);
  }

  function into(box, element) {  // scroll the box alone, never the page
    const outer = box.getBoundingClientRect(), inner = element.getBoundingClientRect();
    const off = (a, b, n) => (a + b) / 2 - n;
    box.scrollBy({
      left: off(inner.left, inner.right, (outer.left + outer.right) / 2),
      top: off(inner.top, inner.bottom, (outer.top + outer.bottom) / 2),
      behavior: calm ? "auto" : "smooth",
    });
  }

  function show(n) {
    step = Math.max(0, Math.min(steps.length, n));
    for (const e of revealed) e.classList.toggle("later", Number(e.dataset.step) > step);
    for (const e of edges) {
      e.classList.toggle("lit", Number(e.dataset.lit) <= step);
      e.classList.toggle("present", Number(e.dataset.lit) === step);
    }
    for (const e of cards) {
      const mine = Number(e.dataset.at);
      e.classList.toggle("reached", mine > 0 && mine <= step);
      e.classList.toggle("present", mine > 0 && mine === step);
    }
    for (const e of items) {
      e.classList.toggle("later", Number(e.dataset.item) > step);
      e.classList.toggle("present", Number(e.dataset.item) === step);
    }
    now.replaceChildren();
    if (step === 0) {
      paragraph("Forward is done: every value is known.", "head");
      paragraph("Now the question is how much the end moves when something at the beginning moves a little. The walk goes " +
        "back from the end, multiplies by one local derivative at each operation, and adds where ways meet. Press Step.");
    } else {
      paragraph(steps[step - 1].headline, "head");
      steps[step - 1].sentences.forEach(text => paragraph(text));
    }
    now.scrollTop = 0;
    at("slider").value = step;
    at("slider").setAttribute("aria-valuetext", "step " + step + " of " + steps.length);
    at("count").textContent = step + " of " + steps.length;
    at("back").disabled = at("reset").disabled = step === 0;
    at("forth").disabled = step === steps.length;
    const card = document.querySelector(".card.present") || document.querySelector(".card.loss");
    if (card) into(graph, card);
    const item = document.querySelector("li.present");
    if (item) into(list, item); else list.scrollTop = 0;
    if (step === steps.length) pause();
  }

  function pause() {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    at("play").textContent = "▶ Play";
  }

  function tick() {
    timer = setTimeout(function () { show(step + 1); if (timer !== null) tick(); }, 2400 / Number(at("speed").value));
  }

  function play() {
    if (timer !== null) return pause();
    if (step === steps.length) show(0);
    at("play").textContent = "❚❚ Pause";
    timer = setTimeout(function () { show(step + 1); if (timer !== null) tick(); }, 0);
  }

  function go(n) { pause(); show(n); }

  at("reset").addEventListener("click", () => go(0));
  at("back").addEventListener("click", () => go(step - 1));
  at("forth").addEventListener("click", () => go(step + 1));
  at("play").addEventListener("click", play);
  at("slider").max = steps.length;
  at("slider").addEventListener("input", e => go(Number(e.target.value)));
  for (const e of cards) e.addEventListener("click", () => { if (Number(e.dataset.at)) go(Number(e.dataset.at)); });
  for (const e of items) e.addEventListener("click", () => go(Number(e.dataset.item)));
  document.addEventListener("keydown", function (e) {
    const tag = e.target.tagName;
    if (e.ctrlKey || e.metaKey || e.altKey || tag === "SELECT") return;
    if (e.key === " " && tag === "BUTTON") return;  // the button's own
    const moves = { " ": play, ArrowRight: () => go(step + 1), ArrowLeft: () => go(step - 1), Home: () => go(0), End: () => go(steps.length) };
    if (moves[e.key]) { e.preventDefault(); moves[e.key](); }
  });

  now.setAttribute("aria-live", "polite");
  now.hidden = false;
  at("controls").hidden = false;
  document.body.classList.add("live");
  show(0);
})();
