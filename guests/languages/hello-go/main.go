// Greets its first argument; `fail` makes it fail.
package main

import (
	"fmt"
	"os"
)

func main() {
	name := "world"
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	if name == "fail" {
		fmt.Fprintln(os.Stderr, "failed as asked")
		os.Exit(1)
	}
	fmt.Printf("hello %s from Go\n", name)
}
