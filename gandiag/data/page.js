// What the page can do beyond being read. Everything is there without it. No network, no eval, no markup from strings.
'use strict';
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (name, attributes = {}, text = '') => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  };

  // the record, as a file
  const link = document.getElementById('download');
  if (link) {
    const text = document.getElementById('record').textContent;
    link.href = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
    link.hidden = false;
  }

  // sheets of tiles: the same layout as exhibits.images.image_grid
  const GAP = 2, GROUP_GAP = 8;
  const readGrid = image => {
    const [columns, rows, group] = ['columns', 'rows', 'group'].map(key => Number(image.dataset[key]) || 0);
    if (!columns || !rows || !image.naturalWidth) return null;
    const breaks = group ? Math.floor((columns - 1) / group) : 0;
    const width = (image.naturalWidth - GAP - GROUP_GAP * breaks) / columns - GAP;
    const height = (image.naturalHeight - GAP) / rows - GAP;
    const left = column => GAP + column * (width + GAP) + (group ? Math.floor(column / group) * GROUP_GAP : 0);
    const top = row => GAP + row * (height + GAP);
    return {columns, rows, width, height, left, top};
  };
  const paint = (canvas, image, grid, column, row, x = 0) => {
    const context = canvas.getContext('2d');
    context.imageSmoothingEnabled = !image.classList.contains('crisp');
    context.drawImage(image, grid.left(column), grid.top(row), grid.width, grid.height,
      x, 0, canvas.height * grid.width / grid.height, canvas.height);
  };

  // a large view of the tile under the pointer
  const lens = make('canvas', {class: 'lens', width: 256, height: 256, 'aria-hidden': 'true', hidden: ''});
  document.body.append(lens);
  const showTile = (event, image) => {
    const grid = readGrid(image), box = image.getBoundingClientRect();
    if (!grid) return;
    const x = (event.clientX - box.left) / box.width * image.naturalWidth;
    const y = (event.clientY - box.top) / box.height * image.naturalHeight;
    const row = Math.min(grid.rows - 1, Math.max(0, Math.floor((y - GAP) / (grid.height + GAP))));
    let column = 0;
    while (column + 1 < grid.columns && x >= grid.left(column + 1)) column += 1;
    lens.width = Math.round(lens.height * grid.width / grid.height);
    paint(lens, image, grid, column, row);
    lens.dataset.tile = `${row},${column}`;
    lens.hidden = false;
    const right = event.clientX + 24 + lens.width < innerWidth;
    lens.style.left = `${Math.max(4, right ? event.clientX + 20 : event.clientX - lens.width - 20)}px`;
    lens.style.top = `${Math.max(4, Math.min(innerHeight - lens.height - 4, event.clientY - lens.height / 2))}px`;
  };
  for (const image of all('img[data-columns]')) {
    image.addEventListener('pointermove', event => showTile(event, image));
    image.addEventListener('pointerdown', event => showTile(event, image));
    image.addEventListener('pointerleave', () => { lens.hidden = true; });
  }
  addEventListener('scroll', () => { lens.hidden = true; }, {passive: true});

  // the same latents at one scale at a time
  const addScaleSlider = image => {
    const grid = readGrid(image);
    const labels = all('.rows span', image.closest('.sheet')).map(span => span.textContent.trim());
    if (!grid || labels.length !== grid.rows || grid.rows < 2) return;
    const box = make('div', {class: 'slider'});
    const canvas = make('canvas', {'aria-hidden': 'true', height: 96});
    canvas.width = Math.round(canvas.height * grid.width / grid.height) * grid.columns;
    const start = Math.max(0, labels.findIndex(text => /(^|\D)1$/.test(text)));
    const range = make('input', {type: 'range', min: 0, max: grid.rows - 1, step: 1, value: start});
    const output = make('output');
    const label = make('label', {}, 'Latent scale ');
    label.append(output, range);
    const update = () => {
      const row = Number(range.value);
      output.textContent = labels[row];
      for (let column = 0; column < grid.columns; column += 1) {
        paint(canvas, image, grid, column, row, column * canvas.width / grid.columns);
      }
      box.dataset.row = row;
    };
    range.addEventListener('input', update);
    box.append(label, canvas);
    image.closest('figure').prepend(box);
    update();
  };
  for (const image of all('img[data-exhibit=scales]')) {
    if (image.complete) addScaleSlider(image); else image.addEventListener('load', () => addScaleSlider(image));
  }

  // two sheets, one over the other
  for (const pair of all('.versus')) {
    const [before, after] = all('img', pair);
    if (!before || !after) continue;
    const range = make('input', {type: 'range', min: 0, max: 100, value: 50, 'aria-label': 'left: before, right: after'});
    const update = () => { after.style.clipPath = `inset(0 0 0 ${range.value}%)`; };
    range.addEventListener('input', update);
    pair.classList.add('stacked');
    pair.append(range);
    update();
  }

  // long tables: sort by a column, and keep the rows that hold a word
  const number = text => {
    const match = text.replace(/,/g, '').replace('−', '-').match(/-?\d+(\.\d+)?(e[+-]?\d+)?/);
    return match ? Number(match[0]) : NaN;
  };
  for (const table of all('table[data-sort]')) {
    const body = table.tBodies[0], rows = [...body.rows];
    if (rows.length < 4) continue;
    const names = [...new Set([...table.querySelectorAll('thead th')].map((cell, i) => cell.textContent.trim() || `column ${i + 1}`))];
    const bar = make('p', {class: 'tools'});
    const order = make('select', {'aria-label': 'Order'});
    order.append(make('option', {value: '-1'}, 'as reported'));
    names.forEach((name, i) => order.append(make('option', {value: i}, `by ${name.toLowerCase()}`)));
    order.addEventListener('change', () => {
      const column = Number(order.value);
      const value = row => (row.cells[column] || row.cells[0]).textContent.trim();
      const sorted = column < 0 ? rows : [...rows].sort((a, b) => {
        const x = number(value(a)), y = number(value(b));
        return Number.isNaN(x) || Number.isNaN(y) ? value(a).localeCompare(value(b)) : y - x;
      });
      body.append(...sorted);
    });
    const filter = make('input', {type: 'search', placeholder: 'Filter', 'aria-label': 'Filter rows'});
    filter.addEventListener('input', () => {
      const word = filter.value.toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(word);
    });
    bar.append(order, filter);
    table.before(bar);
  }

  // a figure as SVG, with the colors of the page
  for (const figure of all('figure.chart')) {
    const svg = figure.querySelector('svg');
    if (!svg) continue;
    const button = make('button', {type: 'button', class: 'tool'}, 'Copy as SVG');
    button.addEventListener('click', () => {
      const style = getComputedStyle(svg);
      const text = new XMLSerializer().serializeToString(svg).replace(/var\((--[\w-]+)\)/g, (_, name) => style.getPropertyValue(name).trim() || 'gray');
      const done = () => { button.textContent = 'Copied'; };
      const save = () => {
        const file = make('a', {download: 'figure.svg', href: URL.createObjectURL(new Blob([text], {type: 'image/svg+xml'}))});
        file.click();
        button.textContent = 'Saved';
      };
      button.dataset.svg = text;
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, save); else save();
    });
    figure.append(button);
  }
})();
