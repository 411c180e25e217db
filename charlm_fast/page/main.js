// Puts the page together once it is loaded.

function tellTrouble(work) {
  byId("trouble").hidden = true;
  try {
    work();
  } catch (error) {
    byId("trouble").textContent = error.message;
    byId("trouble").hidden = false;
    if (!(error instanceof RangeError)) throw error;
  }
}

tellTrouble(() => {
  const data = JSON.parse(byId("data").textContent);
  const engine = new Engine(data.model), vocabulary = new Vocabulary(data.vocabulary);
  const shared = {engine, vocabulary, trouble: tellTrouble};
  const write = new WriteTab({...shared, band: data.band, temperatures: data.temperatures});
  new ReadTab({...shared, written: () => write.text()});
  const look = new LookTab({...shared, prime: () => byId("prime").value});
  useTabs((name) => {
    byId("trouble").hidden = true;
    if (name === "look" && byId("look-text").value === "") look.takeOwn();
  });
  write.begin();
  document.documentElement.dataset.ready = performance.now().toFixed(0);
});
