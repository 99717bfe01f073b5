// Pixels of the canvas over the clip that are not transparent.
() => {
  const canvas = document.querySelector(".stage .marks");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let n = 0;
  for (let i = 3; i < data.length; i += 4) n += data[i] > 0;
  return n;
}
