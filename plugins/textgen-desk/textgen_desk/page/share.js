// A request as a link to this page, as a curl command and as a Python program.

const OPENAI = ["max_tokens", "n", "seed", "temperature", "top_p", "presence_penalty", "frequency_penalty"];

/** The address of this page that makes the same text again. */
export function link(request) {
  const bytes = new TextEncoder().encode(JSON.stringify(request));
  const packed = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return `${location.origin}${location.pathname}#text=${packed.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

/** The request of a link; null for any other address. */
export function fromLink() {
  const packed = new URLSearchParams(location.hash.slice(1)).get("text");
  if (!packed) return null;
  try {
    const bytes = Uint8Array.from(atob(packed.replaceAll("-", "+").replaceAll("_", "/")), (each) => each.charCodeAt(0));
    const request = JSON.parse(new TextDecoder().decode(bytes));
    return typeof request.prompt === "string" && typeof request.model === "string" ? request : null;
  } catch {
    return null;
  }
}

export function curl(request, hasKey) {
  const body = JSON.stringify(request).replaceAll("'", "'\\''");
  const key = hasKey ? ' -H "Authorization: Bearer $OPENAI_API_KEY"' : "";
  return `curl ${api()}/completions${key} \\\n  -H 'Content-Type: application/json' \\\n  -d '${body}'`;
}

export function python(request, hasKey) {
  const { model, prompt, ...options } = request;
  const named = Object.entries(options).filter(([name]) => OPENAI.includes(name));
  const extra = Object.fromEntries(Object.entries(options).filter(([name]) => !OPENAI.includes(name)));
  const given = [["model", model], ["prompt", prompt], ...named].map(([name, value]) => `    ${name}=${JSON.stringify(value)},`);
  if (Object.keys(extra).length) given.push(`    extra_body=${JSON.stringify(extra)},`);
  return [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${api()}"${hasKey ? "" : ', api_key="none"'})`,
    "answer = client.completions.create(",
    ...given,
    ")",
    "for choice in answer.choices:",
    "    print(choice.text)",
  ].join("\n");
}

const api = () => `${location.origin}${location.pathname.replace(/[^/]*$/, "")}v1`;
