// An image to search by: made small before it is sent, so that it travels fast and the browser's history can keep it.
const LONGEST = 512; // pixels; models read squares of 448 at most

export async function readUpload(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return { blob: file, url: null }; // the server says what is wrong with it
  }
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // what is transparent lies on white, as the server has it
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return uploadOf(canvas.toDataURL("image/jpeg", 0.92));
}

// Gives an upload back that the browser's history kept as a data URL.
export function uploadOf(url) {
  const bytes = Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), (character) => character.charCodeAt(0));
  return { blob: new Blob([bytes], { type: "image/jpeg" }), url };
}
