// Which page an address means. Pure; the address is the part after '#'.

/**
 * @typedef {{ page: "jobs" | "job" | "new" | "datasets" | "dataset" | "studio" | "missing", id: string, query: URLSearchParams }} Route
 */

/** @param {string} hash @returns {Route} */
export function parseRoute(hash) {
  const [path, search] = hash.replace(/^#/, "").split("?");
  const query = new URLSearchParams(search ?? "");
  const parts = path.split("/").filter(Boolean);
  if (parts.length === 0) return { page: "jobs", id: "", query };
  if (parts.length === 1 && (parts[0] === "jobs" || parts[0] === "datasets")) return { page: parts[0], id: "", query };
  if (parts.length === 1 && parts[0] === "new") return { page: "new", id: "", query };
  if (parts.length === 1 && parts[0] === "studio") return { page: "studio", id: "", query };
  if (parts.length === 2 && parts[0] === "jobs") return { page: "job", id: parts[1], query };
  if (parts.length === 2 && parts[0] === "datasets") return { page: "dataset", id: parts[1], query };
  return { page: "missing", id: "", query };
}
