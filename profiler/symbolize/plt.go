package symbolize

func (o *Object) addPLT(*symbolTable) {}
