// makePlayer(parent of the controls, show): show(i) draws image i. `load` receives the time of each
// image in seconds; playing waits for their distance in time, at most MAX_WAIT_S.
function makePlayer(root, show) {
  var MAX_WAIT_S = 1;
  var button = root.querySelector('button.play'), clock = root.querySelector('output');
  var slider = root.querySelector('input[type=range]');
  var player = {at: 0, last: 0, speed: 1, times: [0]}, timer = null;
  player.load = function (times) {
    player.stop();
    player.times = times.length ? times : [0];
    player.last = player.times.length - 1;
    slider.max = player.last;
    player.seek(0);
  };
  player.seek = function (i) {
    player.at = Math.max(0, Math.min(player.last, i));
    slider.value = player.at;
    clock.textContent = player.times[player.at].toFixed(1) + ' / ' +
      player.times[player.last].toFixed(1) + ' s';
    show(player.at);
  };
  player.playing = function () { return timer !== null; };
  player.stop = function () {
    clearTimeout(timer);
    timer = null;
    button.textContent = '\u25b6';
    button.setAttribute('aria-label', 'play');
  };
  function step() {
    if (player.at >= player.last) { player.stop(); return; }
    var apart = player.times[player.at + 1] - player.times[player.at];
    timer = setTimeout(function () { player.seek(player.at + 1); step(); },
      1000 * Math.min(MAX_WAIT_S, Math.max(0.01, apart)) / player.speed);
  }
  player.play = function () {
    player.stop();
    if (player.at >= player.last) { player.seek(0); }
    button.textContent = '\u275a\u275a';
    button.setAttribute('aria-label', 'pause');
    step();
  };
  player.toggle = function () { if (player.playing()) { player.stop(); } else { player.play(); } };
  slider.addEventListener('input', function () { player.stop(); player.seek(+slider.value); });
  button.addEventListener('click', player.toggle);
  player.stop();
  return player;
}
