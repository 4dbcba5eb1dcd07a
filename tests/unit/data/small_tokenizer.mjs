// Writes the ids of small_tokenizer_ids.json anew, with a tokenizer that is not ours:
//   npm install @huggingface/tokenizers@0.2.0
//   node small_tokenizer.mjs small_tokenizer.json small_tokenizer_ids.json
import fs from "fs";
import { Tokenizer } from "@huggingface/tokenizers";

const [, , file, golden] = process.argv;
const tokenizer = new Tokenizer(JSON.parse(fs.readFileSync(file, "utf8")), {});
const content = JSON.parse(fs.readFileSync(golden, "utf8"));
content.ids = content.texts.map((text) => Array.from(tokenizer.encode(text, { add_special_tokens: false }).ids));
const line = (value) => "  " + JSON.stringify(value);
const list = (value) => `[\n${value.map(line).join(",\n")}\n ]`;
const fields = Object.entries(content).map(([key, value]) =>
  ` ${JSON.stringify(key)}: ` + (Array.isArray(value) ? list(value) : JSON.stringify(value)));
fs.writeFileSync(golden, `{\n${fields.join(",\n")}\n}\n`);
