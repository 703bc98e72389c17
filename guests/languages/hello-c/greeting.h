/* Writes a greeting for `name` to standard output. */
void greet(const char *name);
