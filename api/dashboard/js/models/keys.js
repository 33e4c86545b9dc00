// Keys nobody else has. Works on plain http too, where crypto.randomUUID is not offered.

/** @returns {string} 32 random hexadecimal digits */
export function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
