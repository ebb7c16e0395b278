// Every `.film` has poses, images, and the index of the image of each pose.
document.querySelectorAll('.film').forEach(function (film) {
  var data = JSON.parse(film.querySelector('script').textContent);
  var image = film.querySelector('img'), base = film.querySelector('.base');
  var player = makePlayer(film, function (i) {
    var p = data.poses[i];
    image.src = 'data:image/jpeg;base64,' + data.images[data.shown[i]];
    base.setAttribute('transform', 'translate(' + -100 * p[1] + ' ' + -100 * p[0] +
      ') rotate(' + -p[2] * 180 / Math.PI + ')');
  });
  player.load(data.times);
  if (location.hash === '#' + film.id) { player.play(); }
});
