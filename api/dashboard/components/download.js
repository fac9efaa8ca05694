// Files made in the page.

/** Hands `content` (a Blob, or text of `type`) to the person as a file. */
export function download(filename, content, type = "text/plain") {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const href = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), { href, download: filename }).click();
  URL.revokeObjectURL(href);
}

/** A chart as a picture: the title, the names of its lines in their colours, and what uPlot drew, on the page's ground. */
export function chartAsPng(plot, title) {
  const { canvas } = plot.ctx;
  const scale = devicePixelRatio;
  const head = 44 * scale;
  const page = getComputedStyle(document.body);
  const picture = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height + head });
  const pen = picture.getContext("2d");
  pen.fillStyle = page.backgroundColor;
  pen.fillRect(0, 0, picture.width, picture.height);
  pen.font = `600 ${13 * scale}px system-ui, sans-serif`;
  pen.fillStyle = page.color;
  pen.fillText(title, 10 * scale, 18 * scale);
  pen.font = `${12 * scale}px system-ui, sans-serif`;
  let left = 10 * scale;
  for (const series of plot.series.slice(1).filter((one) => one.show)) {
    pen.fillStyle = series._stroke ?? series.stroke();
    pen.fillText(series.label, left, 36 * scale);
    left += pen.measureText(series.label).width + 16 * scale;
  }
  pen.drawImage(canvas, 0, head);
  return new Promise((resolve) => picture.toBlob(resolve, "image/png"));
}
