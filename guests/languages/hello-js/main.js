// Greets its first argument; `fail` makes it fail.
import { getArguments } from "wasi:cli/environment@0.2.12";
import { exit } from "wasi:cli/exit@0.2.12";

export const run = {
  run() {
    const [, name = "world"] = getArguments();
    if (name === "fail") {
      console.error("failed as asked");
      exit({ tag: "err" });
    }
    console.log(`hello ${name} from JavaScript`);
  },
};
