// The toolbar of a served episode: sends an edit to the address of the page, which then shows it.
// Needs `episodes.js`.
(function () {
  var GRIP = 12, HIGH = 40;
  var get = function (id) { return document.getElementById(id); };
  var all = get('edit'), said = get('said'), trim = get('trim').elements;
  var times = episodeStage.times(), box = episodeStage.box;
  var first = times[0], last = times[times.length - 1];

  function show(text, wrong) {
    said.textContent = text;
    said.className = wrong ? 'error' : '';
  }
  function send(action, values) {
    all.disabled = true;
    show('\u2026');
    fetch(location.pathname, {
      method: 'POST',
      headers: {'Content-Type': 'application/json'},
      body: JSON.stringify({action: action, values: values, why: get('why').value})
    }).then(function (answer) { return answer.json(); }).then(function (answer) {
      if (answer.error) { throw new Error(answer.error); }
      sessionStorage.setItem('said', answer.done);
      location.reload();
    }).catch(function (error) {
      all.disabled = false;
      show(error instanceof TypeError ?
        'No answer. Has mobile_vla episodes view --serve ended?' : error.message, true);
    });
  }
  function onSubmit(id, send) {
    get(id).addEventListener('submit', function (event) {
      event.preventDefault();
      send(event.target.elements.value);
    });
  }
  ['instruction', 'outcome', 'exclude'].forEach(function (kind) {
    onSubmit(kind, function (field) { send('set', {[kind]: field.value}); });
  });
  onSubmit('undo', function () { send('undo', {}); });
  onSubmit('split', function () { send('set', {split: episodeStage.now()}); });
  onSubmit('trim', function () { send('set', {trim: [+trim.begin.value, +trim.end.value]}); });

  // --- the ends of the trim, in the plot ---
  var ends = document.createElementNS('http://www.w3.org/2000/svg', 'g');
  function end(name, t, from) {  // its grip lies outside what is kept
    var at = episodeStage.x(t), middle = (box.top + box.bottom) / 2;
    return '<rect class="cut" x="' + Math.min(at, from) + '" y="' + box.top + '" width="' +
      Math.abs(at - from) + '" height="' + (box.bottom - box.top) + '"/><g class="end" data-end="' +
      name + '"><path d="M' + at + ' ' + box.top + 'V' + box.bottom + '"/><rect x="' +
      (name === 'begin' ? at - GRIP : at) + '" y="' + (middle - HIGH / 2) + '" width="' + GRIP +
      '" height="' + HIGH + '" rx="3"><title>drag to trim</title></rect></g>';
  }
  function draw() {
    var begin = +trim.begin.value, until = +trim.end.value;
    ends.innerHTML = end('begin', begin, box.left) + end('end', until, box.right);
    get('trim').querySelector('button:not([type])').disabled = begin === first && until === last;
  }
  function set(name, t) {
    trim[name].value = t.toFixed(3);
    draw();
  }
  if (!times.length) {
    ['trim', 'split'].forEach(function (id) {
      [].forEach.call(get(id).elements, function (one) { one.disabled = true; });
    });
  } else {
    episodeStage.svg.appendChild(ends);
    set('begin', first);
    set('end', last);
    get('begin-here').addEventListener('click', function () { set('begin', episodeStage.now()); });
    get('end-here').addEventListener('click', function () { set('end', episodeStage.now()); });
    get('trim').addEventListener('input', draw);
  }
  var dragged = '';
  ends.addEventListener('pointerdown', function (event) {
    var handle = event.target.closest('.end');
    if (!handle || event.button) { return; }
    event.stopPropagation();
    dragged = handle.dataset.end;
  });
  window.addEventListener('pointermove', function (event) {  // before the plot, which seeks
    if (!(event.buttons & 1)) { dragged = ''; }
    if (!dragged) { return; }
    event.stopPropagation();
    var t = episodeStage.nearest(episodeStage.second(event));
    t = dragged === 'begin' ? Math.min(t, +trim.end.value) : Math.max(t, +trim.begin.value);
    set(dragged, t);
    episodeStage.seek(t);
  }, true);
  window.addEventListener('pointerup', function () { dragged = ''; });

  show(sessionStorage.getItem('said') || '');
  sessionStorage.removeItem('said');
})();
