"use strict";

// A mistake in this script is left where people, and the tests, can see it.
addEventListener("error", (event) => {
  document.documentElement.dataset.error = event.message;
});

(() => {
  const frames = [...document.querySelectorAll("#frames img")];
  if (frames.length < 2) return;

  const slider = document.querySelector("#frame");
  const button = document.querySelector("#play");
  const caption = document.querySelector("#where");
  const cursors = document.querySelectorAll(".cursor");
  const delay = Math.min(500, Math.max(60, 10000 / frames.length)); // the whole training in about ten seconds
  let current = frames.length - 1;
  let timer = null;
  let remembering = null;

  function show(index) {
    current = Math.min(frames.length - 1, Math.max(0, index));
    frames.forEach((frame, i) => {
      frame.hidden = i !== current;
    });
    const { where, at } = frames[current].dataset;
    slider.value = current + 1;
    slider.setAttribute("aria-valuetext", where);
    caption.textContent = where;
    cursors.forEach((cursor) => {
      cursor.hidden = at === undefined;
      cursor.style.left = `${at}%`;
    });
  }

  // "#frame=3" is the third picture. The address follows the slider, at rest: browsers limit how often it may change.
  function remember() {
    clearTimeout(remembering);
    remembering = setTimeout(() => history.replaceState(null, "", `#frame=${current + 1}`), 500);
  }

  function followAddress() {
    const asked = /^#frame=(\d+)$/.exec(location.hash);
    if (asked) {
      pause();
      show(Number(asked[1]) - 1);
    }
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  }

  function play() {
    if (current === frames.length - 1) show(0);
    timer = setInterval(() => {
      show(current + 1);
      if (current === frames.length - 1) pause();
    }, delay);
    button.textContent = "Pause";
  }

  function move(index) {
    pause();
    show(index);
    remember();
  }

  slider.addEventListener("input", () => move(slider.valueAsNumber - 1));
  button.addEventListener("click", () => {
    if (timer === null) {
      play();
    } else {
      pause();
      remember();
    }
  });
  addEventListener("keydown", (event) => {
    if (event.target === slider || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    if (event.key === "ArrowLeft") move(current - 1);
    else if (event.key === "ArrowRight") move(current + 1);
  });
  addEventListener("hashchange", followAddress);

  document.querySelector(".player").hidden = false;
  show(current);
  followAddress();
})();
