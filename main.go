// Command initprof tells where a Lambda cold start goes.
package main

func main() {}
