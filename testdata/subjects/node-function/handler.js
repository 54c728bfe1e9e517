'use strict';
const greeting = require('greeting');

exports.handler = async (event) => ({ text: greeting(event) });
