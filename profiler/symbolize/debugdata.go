package symbolize

func (o *Object) addDebugData(*symbolTable) {}
