// The studio's pure parts: places in a text, the table's rows, where the graph's nodes and curves lie.

/**
 * Return where a line and column (from 1, columns in characters) lie in a text, as a text field counts.
 * @param {string} text @param {number} line @param {number | null | undefined} column
 */
export function offsetOf(text, line, column) {
  const lines = text.split("\n");
  const index = Math.min(Math.max(line, 1), lines.length) - 1;
  const before = lines.slice(0, index).reduce((sum, one) => sum + one.length + 1, 0);
  return before + [...lines[index]].slice(0, Math.max((column ?? 1) - 1, 0)).join("").length;
}

/** @param {number[]} shape channels, rows, columns @returns {string} "128 × 40 × 40", never broken across lines */
export const shapeText = (shape) => shape.join("\u00a0×\u00a0");

/** @param {([number, number] | null)[]} fields @param {string} whole said where every pixel counts */
export const fieldText = (fields, whole) =>
  fields.map((field) => (field === null ? whole : field[0] === field[1] ? String(field[0]) : field.join(" × "))).join(", ");

export const NODE = { width: 92, height: 22, step: 30, lane: 104 };

/** @param {number} stride @param {number} least the finest stride there is */
const laneOf = (stride, least) => Math.max(0, Math.round(Math.log2(stride / least)));

/**
 * Place a graph: one line for each row in the order they run, coarser maps further right, skips as bows.
 * @param {{ nodes: any[], edges: any[] }} graph
 * @returns {{ nodes: any[], edges: { path: string, skip: boolean, key: string }[], width: number, height: number }}
 */
export function layout(graph) {
  const least = Math.min(...graph.nodes.map((node) => node.stride));
  const lanes = graph.nodes.map((node) => laneOf(node.stride, least));
  const right = Math.max(...lanes) * NODE.lane + NODE.width + 12;
  const nodes = graph.nodes.map((node, number) => ({ ...node, x: 8 + lanes[number] * NODE.lane, y: 8 + number * NODE.step }));
  const bows = graph.edges.filter((edge) => edge.skip).length;
  let bow = 0;
  const edges = graph.edges.map((edge) => {
    const from = nodes[edge.source + 1];
    const to = nodes[edge.target + 1];
    const key = `${edge.source}-${edge.target}`;
    if (!edge.skip) {
      const [x0, y0, x1, y1] = [from.x + NODE.width / 2, from.y + NODE.height, to.x + NODE.width / 2, to.y];
      return { key, skip: false, path: `M${x0} ${y0} L${x1} ${y1}` };
    }
    const reach = right + 14 + 12 * bow;
    bow += 1;
    const [y0, y1] = [from.y + NODE.height / 2, to.y + NODE.height / 2];
    const bend = Math.min(10, (y1 - y0) / 2);
    const path = `M${from.x + NODE.width} ${y0} H${reach - bend} Q${reach} ${y0} ${reach} ${y0 + bend}`
      + ` V${y1 - bend} Q${reach} ${y1} ${reach - bend} ${y1} H${to.x + NODE.width}`;
    return { key, skip: true, path };
  });
  return { nodes, edges, width: right + 20 + 12 * bows, height: 8 + nodes.length * NODE.step };
}

const WORDS = {
  en: {
    title: "Model studio", start: "Start from", empty: "an empty text", public: "Public YOLOv5 files", yours: "Yours", text: "Model YAML",
    imgsz: "Image size", batch: "Batch", dataset: "Dataset", none: "none", checking: "Checking…", good: "No problem found.", problems: "Problems",
    warnings: "Warnings", line: "line", column: "column", parameters: "Parameters", gflops: "GFLOPs a picture", strides: "Strides", classes: "Classes",
    training: "Maps, training (fp32)", inference: "Maps, inference (fp32)", rows: "Rows", row: "Row", from: "From", module: "Module", shape: "Output",
    stride: "Stride", field: "Receptive field", kept: "Kept for training", whole: "all", graph: "Graph", skips: "dashed lines pass over rows",
    difference: "Difference", against: "Compare with", same: "Nothing differs.", added: "added", removed: "removed", changed: "changed", name: "Name",
    keep: "Keep", saved: "Kept.", goto: "Go to", input: "picture", key: "Key",
  },
  zh: {
    title: "模型工作室", start: "起点", empty: "空文本", public: "YOLOv5 公开文件", yours: "我的", text: "模型 YAML",
    imgsz: "图像尺寸", batch: "批大小", dataset: "数据集", none: "无", checking: "检查中…", good: "未发现问题。", problems: "问题",
    warnings: "警告", line: "行", column: "列", parameters: "参数量", gflops: "每张图 GFLOPs", strides: "步长", classes: "类别数",
    training: "特征图，训练 (fp32)", inference: "特征图，推理 (fp32)", rows: "各层", row: "层", from: "来源", module: "模块", shape: "输出",
    stride: "步长", field: "感受野", kept: "训练时保留", whole: "全图", graph: "结构图", skips: "虚线跨越若干层",
    difference: "差异", against: "对比", same: "没有差异。", added: "新增", removed: "删除", changed: "修改", name: "名称",
    keep: "保存", saved: "已保存。", goto: "跳到", input: "图像", key: "键",
  },
};

/** @param {string} language of the page, such as "en" or "zh-CN" @returns {typeof WORDS.en} */
export const wordsOf = (language) => (language.toLowerCase().startsWith("zh") ? WORDS.zh : WORDS.en);
