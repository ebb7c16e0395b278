// Parses the JSON of an episode when it is selected. Needs `player.js`.
// Returns what `edit.js` needs of the stage.
var episodeStage = (function () {
  var LOUD = {drop: 1, problem: 1, takeover: 1, recovered: 1, split: 1, trim: 1};
  var AXES = ['vx', 'vy', 'wz'], UNITS = ['m/s', 'm/s', 'rad/s'];
  var WIDTH = 800, LEFT = 78, RIGHT = 18, TOP = 34, LANE = 74, APART = 10;
  var HEIGHT = TOP + 3 * (LANE + APART) + 16;
  var get = function (id) { return document.getElementById(id); };
  var all = Array.prototype.slice.call(document.querySelectorAll('.episode'));
  var stage = get('stage'), svg = get('plot'), image = get('image');
  var chosen = null, data = null;

  function esc(text) {
    return String(text).replace(/[&<>"]/g, function (c) { return '&#' + c.charCodeAt(0) + ';'; });
  }
  function x(t) {
    var span = Math.max(data.span[1] - data.span[0], 0.001);
    var share = Math.max(0, Math.min(1, (t - data.span[0]) / span));
    return LEFT + share * (WIDTH - LEFT - RIGHT);
  }
  function y(lane, value) {
    var middle = TOP + lane * (LANE + APART) + LANE / 2;
    return middle - value / data.scale[lane] * (LANE / 2 - 3);
  }
  function maxAge(rows) {
    return rows === data.proposals ? data.proposal_max_age_s : data.max_age_s;
  }
  function endOf(rows, i) {  // the end of row i: the next row, or its maximum age
    var row = rows[i], next = rows[i + 1];
    var old = row[0] + maxAge(rows);
    return next ? Math.min(next[0], old) : Math.min(data.span[1], old);
  }
  function trace(rows, lane) {  // a path for each source
    var paths = ['', '', '', ''];
    rows.forEach(function (row, i) {
      var end = endOf(rows, i), next = rows[i + 1], at = y(lane, row[1 + lane]).toFixed(1);
      paths[row[4]] += 'M' + x(row[0]).toFixed(1) + ' ' + at + 'H' + x(end).toFixed(1) +
        (next && next[0] <= end ? 'V' + y(lane, next[1 + lane]).toFixed(1) : '');
    });
    return paths;
  }
  function lines(lane) {
    return trace(data.proposals, lane).map(function (path) {
      return path && '<path class="proposed" d="' + path + '"/>';
    }).join('') + trace(data.rows, lane).map(function (path, source) {
      return path && '<path class="source-' + source + '" d="' + path + '"/>';
    }).join('');
  }
  function ticks() {
    var span = data.span[1] - data.span[0];
    var step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600].filter(
      function (s) { return span / s <= 12; })[0] || 7200;
    var text = '';
    for (var t = Math.ceil(data.span[0] / step) * step; t <= data.span[1] + 1e-9; t += step) {
      text += '<path class="grid" d="M' + x(t) + ' ' + TOP + 'V' + (HEIGHT - 16) + '"/><text x="' +
        x(t) + '" y="' + (HEIGHT - 3) + '" text-anchor="middle">' + +t.toFixed(1) + ' s</text>';
    }
    return text;
  }
  function marks() {
    var busy = [-99, -99];  // end of the last label in each of two lines
    return data.events.map(function (event) {
      var at = x(event[0]), loud = LOUD[event[1]] ? ' loud' : '';
      var size = 8 * event[1].length, from = Math.min(at, WIDTH - size);
      var line = from > busy[0] ? 0 : from > busy[1] ? 1 : -1;
      if (line >= 0) { busy[line] = from + size + 6; }
      return '<g class="mark' + loud + '"><title>' + esc(event[0].toFixed(2) + ' s: ' + event[1] +
        ' ' + event[2]) + '</title><path d="M' + at + ' ' + (TOP - 6) + 'V' + (HEIGHT - 16) +
        '"/>' + (line < 0 ? '' : '<text x="' + from + '" y="' + (11 + 13 * line) + '">' +
        esc(event[1]) + '</text>') + '</g>';
    }).join('');
  }
  function draw() {
    var text = data.gaps.map(function (gap) {
      return '<rect class="gap" x="' + x(gap[0]) + '" y="' + TOP + '" width="' +
        Math.max(2, x(gap[1]) - x(gap[0])) + '" height="' + (HEIGHT - TOP - 16) + '"><title>' +
        (gap[1] - gap[0]).toFixed(2) + ' s without a frame</title></rect>';
    }).join('') + ticks();
    AXES.forEach(function (name, lane) {
      text += '<rect class="lane" x="' + LEFT + '" y="' + (TOP + lane * (LANE + APART)) +
        '" width="' + (WIDTH - LEFT - RIGHT) + '" height="' + LANE + '"/>' +
        '<path class="zero" d="M' + LEFT + ' ' + y(lane, 0) + 'H' + (WIDTH - RIGHT) + '"/>' +
        '<text x="0" y="' + (y(lane, 0) - 8) + '">' + name + ', ' + UNITS[lane] + '</text>' +
        '<text class="now" x="0" y="' + (y(lane, 0) + 13) + '"></text>' +
        '<text class="proposal" x="0" y="' + (y(lane, 0) + 28) + '"></text>' +
        '<text class="scale" x="' + (LEFT - 4) + '" y="' + (y(lane, data.scale[lane]) + 6) + '">' +
        +data.scale[lane].toFixed(2) + '</text><text class="scale" x="' + (LEFT - 4) + '" y="' +
        (y(lane, -data.scale[lane]) + 1) + '">\u2212' + +data.scale[lane].toFixed(2) + '</text>' +
        lines(lane);
    });
    if (!data.rows.length) {
      text += '<text x="' + (LEFT + WIDTH - RIGHT) / 2 + '" y="' + (y(1, 0) - 8) +
        '" text-anchor="middle" class="empty">no command</text>';
    }
    svg.setAttribute('viewBox', '0 0 ' + WIDTH + ' ' + HEIGHT);
    svg.innerHTML = text + marks() + '<path id="cursor" d="M0 ' + TOP + 'V' + (HEIGHT - 16) +
      '"/>';
  }
  function newest(rows, t) {  // the row that holds at t, as in training; or null
    var found = null;
    rows.forEach(function (row, i) {
      if (row[0] <= t + 1e-6 && t <= row[0] + maxAge(rows)) { found = row; }
    });
    return found;
  }
  function source(i) {
    if (i === data.thumb) { return chosen.querySelector('img').src; }
    return data.images[i] ? 'data:image/jpeg;base64,' + data.images[i] : '';
  }
  var player = makePlayer(stage, function (i) {
    if (!data) { return; }
    var t = data.times.length ? data.times[i] : data.span[0], row = newest(data.rows, t);
    var proposed = newest(data.proposals, t);
    var has = data.times.length && source(i);
    image.style.visibility = has ? 'visible' : 'hidden';
    if (has) { image.src = source(i); }
    get('frame').textContent = !data.times.length ? 'no frame' : 'frame ' + (data.index[i] + 1) +
      ' of ' + data.frames + (has ? '' : ': cannot be read');
    get('cursor').setAttribute('transform', 'translate(' + x(t).toFixed(1) + ')');
    svg.querySelectorAll('.now').forEach(function (text, lane) {
      text.textContent = row ? row[1 + lane].toFixed(2) : '\u2013';
    });
    svg.querySelectorAll('.proposal').forEach(function (text, lane) {
      text.textContent = proposed ? '(' + proposed[1 + lane].toFixed(2) + ')' : '';
    });
    stage.dataset.time = t.toFixed(3);
    if (!player.playing()) { remember(); }
  });
  function nearest(t) {
    var best = 0;
    data.times.forEach(function (one, i) {
      if (Math.abs(one - t) < Math.abs(data.times[best] - t)) { best = i; }
    });
    return best;
  }
  function remember() {
    try {
      history.replaceState(null, '', '#take=' + chosen.id + '&t=' + stage.dataset.time);
    } catch (error) { /* some browsers forbid this for files */ }
  }
  function choose(card, t) {
    player.stop();
    if (chosen) { chosen.classList.remove('chosen'); }
    chosen = card;
    card.classList.add('chosen');
    data = JSON.parse(card.querySelector('script').textContent);
    data.proposals = data.proposals || [];
    draw();
    get('about').className = card.dataset.verdict;
    get('about').innerHTML = card.querySelector('.about').innerHTML;
    get('measures').innerHTML = card.querySelector('.measures').innerHTML;
    get('events').innerHTML = data.events.map(function (event) {
      return '<li><button type="button" data-t="' + event[0] + '">' + event[0].toFixed(2) +
        ' s</button> <b>' + esc(event[1]) + '</b> ' + esc(event[2]) + '</li>';
    }).join('') || '<li>none</li>';
    player.load(data.times);
    if (t) { player.seek(nearest(t)); }
  }
  function isSticky() { return getComputedStyle(stage).position === 'sticky'; }
  function shown() { return all.filter(function (card) { return !card.hidden; }); }
  function beside(step) {
    var cards = shown(), place = cards.indexOf(chosen) + step;
    if (place >= 0 && place < cards.length) {
      choose(cards[place]);
      if (isSticky()) { cards[place].scrollIntoView({block: 'nearest'}); }
    }
  }
  function number(card, key) { return +card.dataset[key]; }
  var ORDERS = {
    worst: function (a, b) {
      return number(a, 'rank') - number(b, 'rank') || ORDERS.newest(a, b);
    },
    newest: function (a, b) { return a.id < b.id ? 1 : a.id > b.id ? -1 : 0; },
    oldest: function (a, b) { return -ORDERS.newest(a, b); },
    longest: function (a, b) { return number(b, 'seconds') - number(a, 'seconds'); },
    shortest: function (a, b) { return -ORDERS.longest(a, b); },
    instruction: function (a, b) {
      return a.dataset.instruction.localeCompare(b.dataset.instruction) || ORDERS.worst(a, b);
    }
  };
  function filter() {
    var words = get('words').value.trim().toLowerCase(), wanted = {};
    document.querySelectorAll('#verdicts input').forEach(function (box) {
      wanted[box.value] = box.checked;
    });
    all.forEach(function (card) {
      card.hidden = !wanted[card.dataset.verdict] ||
        card.dataset.instruction.toLowerCase().indexOf(words) < 0;
    });
    var count = shown().length;
    get('count').textContent = count === all.length ? '' : count + ' of ' + all.length + ' episodes';
    get('none').hidden = count > 0;
  }
  function sort() {
    all.sort(ORDERS[get('order').value]);
    all.forEach(function (card) { get('episodes').appendChild(card); });
  }
  function follow() {  // #take=…&t=…&play
    var link = new URLSearchParams(location.hash.slice(1)), card = get(link.get('take'));
    if (!card || all.indexOf(card) < 0) { return false; }
    if (card !== chosen || Math.abs(+link.get('t') - stage.dataset.time) > 0.001) {
      choose(card, +link.get('t'));
    }
    if (link.has('play')) { player.play(); }
    return true;
  }
  function second(event) {  // where the pointer is on the time line
    var box = svg.getBoundingClientRect();
    var share = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
    return data.span[0] + share * (data.span[1] - data.span[0]);
  }
  function seek(t) {
    player.stop();
    player.seek(nearest(t));
  }
  function scrub(event) {
    if ((event.buttons & 1) && data.times.length) { seek(second(event)); }
  }

  sort();
  all.forEach(function (card) {
    function select() {
      choose(card);
      if (!isSticky()) { stage.scrollIntoView({block: 'nearest'}); }
    }
    card.addEventListener('click', select);
    card.addEventListener('keydown', function (event) {
      if (event.key === 'Enter') { select(); }
    });
  });
  svg.addEventListener('pointerdown', scrub);
  svg.addEventListener('pointermove', scrub);
  get('words').addEventListener('input', filter);
  get('verdicts').addEventListener('change', filter);
  get('order').addEventListener('change', sort);
  get('speed').addEventListener('change', function () { player.speed = +get('speed').value; });
  get('events').addEventListener('click', function (event) {
    if (event.target.dataset.t) { seek(+event.target.dataset.t); }
  });
  document.addEventListener('keydown', function (event) {
    if (event.ctrlKey || event.altKey || event.metaKey ||
        /^(INPUT|SELECT)$/.test(event.target.tagName) && event.target.type !== 'range') { return; }
    if (event.key === ' ' && event.target.tagName === 'BUTTON') { return; }
    var jump = event.shiftKey ? 10 : 1;
    var keys = {
      ArrowRight: function () { player.stop(); player.seek(player.at + jump); },
      ArrowLeft: function () { player.stop(); player.seek(player.at - jump); },
      Home: function () { player.stop(); player.seek(0); },
      End: function () { player.stop(); player.seek(player.last); },
      ArrowDown: function () { beside(1); },
      ArrowUp: function () { beside(-1); },
      ' ': player.toggle
    };
    if (keys[event.key] && chosen) { event.preventDefault(); keys[event.key](); }
  });
  window.addEventListener('hashchange', follow);
  if (!follow() && all.length) { choose(all[0]); }
  return {
    svg: svg,
    box: {left: LEFT, right: WIDTH - RIGHT, top: TOP, bottom: HEIGHT - 16},
    x: x,
    second: second,
    seek: seek,
    times: function () { return data.times; },
    nearest: function (t) { return data.times[nearest(t)]; },
    now: function () { return +stage.dataset.time; }
  };
})();
