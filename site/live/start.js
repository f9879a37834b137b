// Puts each explanation into its place on a page: <div class="live" data-piece="NAME">. What stood there, a picture,
// stays if the explanation cannot be loaded.

const beside = (name) => new URL(name, import.meta.url).href;

async function start(element) {
  const name = element.dataset.piece;
  try {
    const [piece, data] = await Promise.all([
      import(beside(`${name}.js`)),
      fetch(beside(`${name}.json`)).then((reply) => {
        if (!reply.ok) throw new Error(`${name}.json: ${reply.status}`);
        return reply.json();
      }),
    ]);
    element.replaceChildren();
    piece.mount(element, data);
  } catch (error) {
    const told = document.createElement("p");
    told.textContent = `This explanation did not load (${error.message}). Reload the page to try again.`;
    element.append(told);
  }
}

if (!document.querySelector('link[href$="live.css"]')) {
  const link = document.createElement("link");
  Object.assign(link, { rel: "stylesheet", href: beside("live.css") });
  document.head.append(link);
}
document.querySelectorAll(".live[data-piece]").forEach(start);
